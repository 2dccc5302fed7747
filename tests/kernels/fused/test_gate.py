"""The fused gate against its reference and against float64."""

from __future__ import annotations

import pytest
import torch

from mass_serve.kernels.activation_names import ACTIVATIONS, Activation
from mass_serve.kernels.backend import backend
from mass_serve.kernels.gate import gate, reference
from tests.interpreter import DEVICE
from tests.kernels.segmented import activated

TOLERANCES = [(torch.float32, 1e-5, 1e-5), (torch.float16, 5e-3, 2e-3), (torch.bfloat16, 5e-3, 2e-2)]


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 56), (33, 129), (3, 2048)])
def test_it_multiplies_the_activated_half_by_the_other(
    rows: int, width: int, activation: Activation, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    torch.manual_seed(width)
    x = torch.randn(rows, 2 * width).to(dtype)
    with backend("fused"):
        y = gate(x.to(DEVICE), activation).cpu()
    a, b = x.double().chunk(2, dim=1)
    torch.testing.assert_close(y.double(), activated(a, activation) * b, atol=atol, rtol=rtol)
    torch.testing.assert_close(y, reference.gate(x, activation), atol=atol, rtol=rtol)
