"""Activations by their textbook formulas, and with the same bits wherever an element lies in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mass_serve.kernels.activation_names import ACTIVATIONS, Activation
from mass_serve.kernels.activations import activate_
from mass_serve.kernels.gate import gate
from tests.kernels.segmented import activated

TOLERANCES = [(torch.float32, 2e-6, 2e-6), (torch.bfloat16, 1e-3, 2e-2)]


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_is_the_textbooks(activation: Activation, dtype: torch.dtype, atol: float, rtol: float) -> None:
    torch.manual_seed(0)
    x = torch.cat([5 * torch.randn(40, 37), torch.tensor([[-1e4] * 37, [1e4] * 37, [0.0] * 37])]).to(dtype)
    wanted = activated(x.double(), activation)
    torch.testing.assert_close(activate_(x.clone(), activation).double(), wanted, atol=atol, rtol=rtol)


@pytest.mark.parametrize(("dtype", "atol", "rtol"), TOLERANCES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gate_multiplies_the_activated_half_by_the_other(
    activation: Activation, dtype: torch.dtype, atol: float, rtol: float
) -> None:
    torch.manual_seed(0)
    x = (3 * torch.randn(23, 58)).to(dtype)
    a, b = x.double().chunk(2, dim=1)
    torch.testing.assert_close(
        gate(x, activation).double(), activated(a, activation) * b, atol=5 * atol, rtol=rtol
    )


@pytest.fixture(params=[1, 2, 3, 16])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_row_has_the_same_bits_in_every_batch(
    activation: Activation, dtype: torch.dtype, threads: int
) -> None:
    """Also where a width is no multiple of what a processor computes at once, and with several chunks."""
    torch.manual_seed(0)
    for rows, width in ((40, 38), (9, 1 << 16), (21, 9974)):
        torch.set_num_threads(1)
        x = torch.randn(rows, width).to(dtype)
        whole, gated = activate_(x.clone(), activation), gate(x, activation)
        torch.set_num_threads(threads)
        for count in range(1, rows):
            part = slice(rows - count, rows)
            assert torch.equal(activate_(x[part].clone(), activation), whole[part])
            assert torch.equal(gate(x[part], activation), gated[part])


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="no activation 'elu'"):
        activate_(torch.zeros(1, 1), "elu")  # type: ignore[arg-type]
