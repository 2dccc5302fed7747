"""The fused segmented LayerNorm against its reference and against float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import segmented_layer_norm
from mass_serve.kernels.backend import backend
from mass_serve.kernels.layer_norm import reference
from tests.interpreter import DEVICE
from tests.kernels.splits import PATTERNS, offsets

TOLERANCES = [(torch.float32, 2e-6, 1e-5), (torch.float16, 2e-3, 2e-3), (torch.bfloat16, 2e-2, 1e-2)]


def _in_float64(x: Tensor, weights: list[Tensor], biases: list[Tensor], rows: tuple[int, ...]) -> Tensor:
    parts = []
    for (start, stop), weight, bias in zip(pairwise(rows), weights, biases, strict=True):
        part = x[start:stop].double()
        centred = part - part.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        parts.append(normed * weight.double() + bias.double())
    return torch.cat(parts)


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize(
    ("width", "pattern"), [*((64, pattern) for pattern in PATTERNS), (129, "zipf"), (768, "skewed")]
)
def test_every_row_gets_the_weights_of_its_segment(
    width: int, pattern: str, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    torch.manual_seed(width)
    rows = tuple(3 * offset for offset in offsets(pattern, samples=7, sets=4))
    x = (3 + 5 * torch.randn(rows[-1], width)).to(dtype)
    weights, biases = ([torch.randn(width).to(dtype) for _ in rows[1:]] for _ in range(2))
    with backend("fused"):
        w, b = ([t.to(DEVICE) for t in part] for part in (weights, biases))
        y = segmented_layer_norm(x.to(DEVICE), w, b, rows, 1e-5).cpu()
    torch.testing.assert_close(
        y.double(), _in_float64(x, weights, biases, rows), atol=10 * atol, rtol=10 * rtol
    )
    expected = reference.segmented_layer_norm(x, weights, biases, rows, 1e-5)
    torch.testing.assert_close(y, expected, atol=atol, rtol=rtol)
