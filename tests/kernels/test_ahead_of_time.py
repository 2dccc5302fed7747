"""The kernels compile on a machine without a GPU for those that there are, fit them and use their cores.

`python -m benchmarks.kernels_aot` compiles them for every encoder and architecture; here are samples of both.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.aot_compile import H200, Variant
from benchmarks.aot_variants import (
    attention_variant,
    attention_variants,
    head_variants,
    product_variant,
    router_variants,
    row_variants,
)
from benchmarks.gpu_targets import ENCODERS, TARGETS, Target
from benchmarks.kernels_aot import checked
from benchmarks.shrink_forms import forms
from mass_serve.kernels.activation_names import ACTIVATIONS, Activation
from mass_serve.kernels.attention.fused import attention_kernel
from mass_serve.kernels.embedding.fused import added_rows_kernel, embedding_kernel
from mass_serve.kernels.energies.fused import energies_kernel
from mass_serve.kernels.gate.fused import gate_kernel
from mass_serve.kernels.layer_norm.fused import layer_norm_kernel
from mass_serve.kernels.low_rank.triton_kernels import expand_kernel
from mass_serve.kernels.low_rank.triton_shrink import shrink_kernel
from mass_serve.kernels.positions.fused import positions_kernel
from mass_serve.kernels.residual.fused import coefficients_kernel, residuals_kernel
from mass_serve.kernels.tile_shapes import Kernel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled there"),
]


def _problems(variant: Variant, target: Target = H200) -> list[str]:
    found: list[str] = checked(variant, target)["problems"]
    return found


@pytest.mark.parametrize("architecture", TARGETS)
@pytest.mark.parametrize("kernel", ["expand", "shrink"])
def test_a_product_compiles_well_for_every_architecture(architecture: str, kernel: Kernel) -> None:
    target = TARGETS[architecture]
    assert _problems(product_variant(kernel, 768, 768, packed=True, target=target), target) == []


@pytest.mark.parametrize(
    ("kernel", "encoder", "packed"),
    [
        ("expand", "ViT-L/14", False),
        ("expand", "ViT-L/14", True),
        ("shrink", "ViT-S/14", True),
        ("shrink", "ModernBERT", False),
    ],
)
def test_products_of_other_sizes_do_too(kernel: Kernel, encoder: str, packed: bool) -> None:
    d_out, d_in = ENCODERS[encoder].linears["fc1" if encoder == "ModernBERT" else "patches"]
    assert _problems(product_variant(kernel, d_out, d_in, packed=packed)) == []


@pytest.mark.parametrize("architecture", TARGETS)
def test_a_layer_norm_where_rows_are_shrunk_does_too(architecture: str) -> None:
    target = TARGETS[architecture]
    variant = product_variant("shrink", 2304, 768, packed=True, target=target, NORM=True)
    assert _problems(variant, target) == []


@pytest.mark.parametrize("architecture", ["sm_90a", "gfx942"])
def test_products_in_float32_do_too(architecture: str) -> None:
    target = TARGETS[architecture]
    assert _problems(product_variant("expand", 768, 768, dtype="float32", target=target), target) == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_compiles(activation: Activation) -> None:
    assert _problems(product_variant("expand", 3072, 768, ACTIVATION=activation)) == []


def test_what_does_not_compile_is_a_problem() -> None:
    assert _problems(product_variant("expand", 768, 768, ACTIVATION="relu")) == [
        "it does not compile: CompileTimeAssertionFailure: there is no such activation"
    ]


def test_registers_that_are_spilled_are_a_problem() -> None:
    variant = replace(product_variant("expand", 768, 768), max_registers=96)
    assert any("bytes of registers are spilled" in problem for problem in _problems(variant))


def test_more_shared_memory_than_there_is_is_a_problem() -> None:
    variant = replace(product_variant("shrink", 768, 768), num_stages=12)
    assert any("bytes of shared memory" in problem for problem in _problems(variant))


def test_products_without_the_matrix_cores_are_a_problem() -> None:
    variant = product_variant("shrink", 768, 768, dtype="float32", PRECISION="ieee", BLOCK_N=16)
    assert "there is no matrix instruction" in _problems(variant)


def test_loads_of_single_numbers_are_a_problem() -> None:
    variant = replace(product_variant("shrink", 768, 768), sizes={"d_in": 767})
    assert "a main loop loads 2 bytes at a time, not 16" in _problems(variant)


def test_loads_of_single_numbers_are_a_problem_behind_a_layer_norm_in_float32_too() -> None:
    behind_norm = product_variant("shrink", 768, 768, dtype="float32", NORM=True)
    assert _problems(behind_norm) == []
    assert "a main loop loads 4 bytes at a time, not 16" in _problems(
        replace(behind_norm, sizes={"d_in": 767})
    )


def test_the_recorded_forms_of_shrink_are_those_of_the_code() -> None:
    """Else `python -m benchmarks.shrink_forms --json benchmarks/results/shrink_forms.json` was not run."""
    result = Path(__file__).parents[2] / "benchmarks" / "results" / "shrink_forms.json"
    assert json.loads(result.read_text(encoding="utf-8"))["forms"] == forms()


def test_fewer_blocks_than_the_table_says_are_a_problem() -> None:
    variant = replace(product_variant("expand", 768, 768), max_registers=0)
    assert _problems(variant) == ["a multiprocessor holds 1 blocks, not 2"]


def test_the_other_kernels_compile_well() -> None:
    variants = [one for one in (*row_variants(768), *router_variants()) if one.dtype == "bfloat16"]
    assert len({one.name for one in variants}) == 8
    assert [_problems(one) for one in variants] == [[]] * len(variants)


@pytest.mark.parametrize("architecture", TARGETS)
def test_the_kernels_of_heads_compile_well_for_every_architecture(architecture: str) -> None:
    target = TARGETS[architecture]
    variants = list(head_variants(target))
    assert [_problems(one, target) for one in variants] == [[]] * len(variants)


@pytest.mark.parametrize("architecture", TARGETS)
def test_attention_compiles_well_for_every_architecture(architecture: str) -> None:
    target = TARGETS[architecture]
    assert _problems(attention_variant("bfloat16", 64, target=target), target) == []


def test_every_kind_of_attention_does() -> None:
    variants = list(attention_variants())
    assert [_problems(one) for one in variants] == [[]] * len(variants)


@pytest.mark.parametrize(
    "kernel",
    [
        *(expand_kernel, shrink_kernel, layer_norm_kernel, positions_kernel, energies_kernel),
        *(embedding_kernel, added_rows_kernel, gate_kernel, coefficients_kernel, residuals_kernel),
        attention_kernel,
    ],
    ids=lambda kernel: kernel.__name__,
)
def test_what_follows_from_a_batch_specialises_no_kernel(kernel: object) -> None:
    varying = {"num_tiles", "record_length", "field", "tokens", "num_tasks", "batch", "elements", "before"}
    varying |= {"blocks", "norm_field"}
    parameters = {one.name: one.do_not_specialize for one in kernel.params}  # type: ignore[attr-defined]
    assert all(parameters[name] for name in varying & parameters.keys())
    assert varying & parameters.keys()
