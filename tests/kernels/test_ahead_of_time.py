"""The kernels compile for the H200 on a machine without a GPU, and fit it."""

from __future__ import annotations

import os

import pytest
from triton.compiler import CompilationError

from benchmarks.kernels_aot import Compiled, product_variant, row_and_router_variants
from mass_serve.kernels.activations import ACTIVATIONS, Activation
from mass_serve.kernels.tile_shapes import Entry, read_table

SHARED_BYTES_OF_A_BLOCK = 227 * 1024
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled there"),
]


def _fits(one: Compiled) -> bool:
    return one.spilled_bytes == 0 and one.shared_bytes <= SHARED_BYTES_OF_A_BLOCK and one.registers <= 255


@pytest.mark.parametrize(("kernel", "columns"), [("expand", 768), ("expand", 2304), ("shrink", 38)])
@pytest.mark.parametrize("packed", [False, True])
def test_the_products_use_the_tensor_cores_and_spill_nothing(kernel: str, columns: int, packed: bool) -> None:
    table = [entry for entry in read_table() if entry.dtype == "bfloat16" and entry.d_in == 768]
    (entry,) = (entry for entry in table if (entry.kernel, entry.columns) == (kernel, columns))
    compiled = product_variant(entry, PACKED=packed)
    assert compiled.tensor_core == "wgmma"
    assert _fits(compiled)


def _expand_entry() -> Entry:
    table = [entry for entry in read_table() if entry.dtype == "bfloat16" and entry.d_in == 768]
    return next(entry for entry in table if (entry.kernel, entry.columns) == ("expand", 768))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_compiles(activation: Activation) -> None:
    assert _fits(product_variant(_expand_entry(), ACTIVATION=activation))


def test_an_unknown_activation_does_not_compile() -> None:
    with pytest.raises(CompilationError) as error:
        product_variant(_expand_entry(), ACTIVATION="relu")
    assert "no such activation" in str(error.value.__cause__)


def test_the_other_kernels_spill_nothing() -> None:
    compiled = row_and_router_variants()
    assert len(compiled) == 10
    assert all(_fits(one) for one in compiled)
