"""The kernels compile for the H200 on a machine without a GPU, and fit it."""

from __future__ import annotations

import os

import pytest

from benchmarks.kernels_aot import Compiled, product_variant, row_and_router_variants
from mass_serve.kernels.tile_shapes import read_table

SHARED_BYTES_OF_A_BLOCK = 227 * 1024
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled there"),
]


def _fits(one: Compiled) -> bool:
    return one.spilled_bytes == 0 and one.shared_bytes <= SHARED_BYTES_OF_A_BLOCK and one.registers <= 255


@pytest.mark.parametrize(("kernel", "columns"), [("expand", 768), ("expand", 2304), ("shrink", 38)])
def test_the_products_use_the_tensor_cores_and_spill_nothing(kernel: str, columns: int) -> None:
    table = [entry for entry in read_table() if entry.dtype == "bfloat16" and entry.d_in == 768]
    (entry,) = (entry for entry in table if (entry.kernel, entry.columns) == (kernel, columns))
    compiled = product_variant(entry)
    assert compiled.tensor_core == "wgmma"
    assert _fits(compiled)


def test_the_other_kernels_spill_nothing() -> None:
    compiled = row_and_router_variants()
    assert len(compiled) == 4
    assert all(_fits(one) for one in compiled)
