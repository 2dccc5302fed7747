"""The gate of compiled kernels fails on each thing that it is there for."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from benchmarks import aot_variants, kernels_aot
from benchmarks.aot_compile import H200, Compiled, Variant, narrowest_load
from benchmarks.aot_loops import Loop, loaded_bytes, product_loops
from benchmarks.aot_occupancy import blocks_per_multiprocessor
from benchmarks.aot_variants import (
    DTYPES,
    all_variants,
    entries_for,
    product_variant,
    router_variants,
    table_variants,
)
from benchmarks.gpu_targets import ENCODERS, TARGETS
from mass_serve.kernels.activation_names import ACTIVATIONS
from mass_serve.kernels.tile_shapes import Kernel, read_table

ROOT = Path(__file__).parents[2]
KERNELS: tuple[Kernel, ...] = ("shrink", "expand")

GOOD = Compiled(
    registers=128,
    spilled_bytes=0,
    shared_bytes=98304,
    blocks=2,
    matrix_instructions=12,
    fast_matrix_instructions=12,
    narrowest_load=16,
)


def _expand(**options: object) -> Variant:
    return product_variant("expand", 3072, 768, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TARGETS)
def test_the_gate_compiles_each_product_once_in_every_form(name: str) -> None:
    variants = list(all_variants(list(ENCODERS), TARGETS[name]))
    assert len({str(one.described()) for one in variants}) == len(variants)
    forms = {(one.name, one.dtype, one.constants["PACKED"]) for one in variants if "PACKED" in one.constants}
    kernels = ("expand_kernel", "shrink_kernel", "embedding_kernel")
    assert forms == set(product(kernels, DTYPES, (False, True)))
    expands = [one for one in variants if one.name == "expand_kernel"]
    assert {one.dtype for one in expands if not one.constants["LOW_RANK"]} == set(DTYPES)
    activations = {one.constants["ACTIVATION"] for one in expands}
    assert activations == {None, *ACTIVATIONS}
    attentions = [one.constants for one in variants if one.name == "attention_kernel"]
    assert {(one["FIRST"], one["RAGGED"]) for one in attentions} == set(product((False, True), repeat=2))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_gate_compiles_the_layer_norms_that_are_computed_where_rows_are_shrunk(encoder: str) -> None:
    compiled = {str(one.described()) for one in all_variants([encoder], H200)}
    for linear, packed in product(("qkv", "fc1"), (False, True)):
        shape = ENCODERS[encoder].linears[linear]
        assert str(product_variant("shrink", *shape, packed=packed, NORM=True).described()) in compiled


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_gate_compiles_plain_and_packed_blocks_of_every_linear(encoder: str) -> None:
    compiled = {str(one.described()) for one in all_variants([encoder], H200)}
    for shape, kernel, packed in product(ENCODERS[encoder].linears.values(), KERNELS, (False, True)):
        wanted = product_variant(kernel, *shape, packed=packed)
        options: list[dict[str, Any]] = [{}, {"HAS_SKIP": True}, {"ACTIVATION": ENCODERS[encoder].activation}]
        forms = [replace(wanted, constants={**wanted.constants, **one}) for one in options]
        assert any(str(one.described()) in compiled for one in forms), (shape, kernel, packed)


def test_every_tile_of_the_table_is_compiled() -> None:
    left = {(entry.kernel, entry.dtype, entry.tile) for entry in read_table()}
    for target in TARGETS.values():
        left -= {(entry.kernel, entry.dtype, entry.tile) for entry in entries_for(target)}
        # Plain and packed, and of shrink behind a LayerNorm or not.
        forms = {"expand": 2, "shrink": 4}
        assert len(list(table_variants(target))) == sum(forms[e.kernel] for e in entries_for(target))
    assert left == set()


def test_a_tile_of_one_gpu_alone_is_compiled_for_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    (like, *_) = [entry for entry in read_table() if entry.kernel == "expand"]
    own = replace(like, device="NVIDIA H200", architecture="sm_90", tile=replace(like.tile, block_n=256))
    monkeypatch.setattr(aot_variants, "read_table", lambda: [own])
    assert {one.constants["BLOCK_N"] for one in table_variants(H200)} == {256}
    assert list(table_variants(TARGETS["sm_80"])) == []


@pytest.mark.parametrize("name", ["coefficients_kernel", "residuals_kernel", "energies_kernel"])
@pytest.mark.parametrize("architecture", ["sm_80", "gfx942"])
def test_the_routers_products_need_a_matrix_instruction(architecture: str, name: str) -> None:
    target = TARGETS[architecture]
    compiled = replace(GOOD, matrix_instructions=0, fast_matrix_instructions=0)
    found = [one for one in router_variants(target) if one.name == name]
    assert len(found) >= 3
    for one in found:
        assert "there is no matrix instruction" in kernels_aot.problems(one, compiled, target)


def test_a_summary_says_what_a_kernel_takes_at_the_most_and_what_is_wrong() -> None:
    of_kernel = _expand().described() | {"problems": []}
    first, second = (of_kernel | asdict(replace(GOOD, **own)) for own in ({"registers": 90}, {"blocks": 1}))
    third = of_kernel | {"problems": ["it does not compile: no"]}
    found = kernels_aot.summary([first, second, third])
    most = {"variants": 2, "registers": 128, "shared_bytes": 98304, "blocks": 1}
    assert found["kernels"] == {"expand_kernel bfloat16": most}
    assert found["variants"] == 3
    (problem,) = found["problems"]
    assert problem.endswith("it does not compile: no")


@pytest.mark.slow
def test_the_recorded_run_is_of_these_variants_and_this_triton_and_found_nothing_wrong() -> None:
    """Else `python -m benchmarks.kernels_aot --json benchmarks/results/kernels_aot.json` was not run."""
    recorded = json.loads((ROOT / "benchmarks" / "results" / "kernels_aot.json").read_text(encoding="utf-8"))
    assert f"triton=={recorded['triton']}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = {name: (one["variants"], one["problems"]) for name, one in recorded["architectures"].items()}
    variants = {name: len(list(all_variants(list(ENCODERS), target))) for name, target in TARGETS.items()}
    assert found == {name: (count, []) for name, count in variants.items()}


def test_a_variant_with_nothing_wrong_has_no_problem() -> None:
    assert kernels_aot.problems(_expand(), GOOD, H200) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"spilled_bytes": 8}, "8 bytes of registers are spilled"),
        ({"shared_bytes": 300_000}, "300000 bytes of shared memory are more than there are"),
        ({"matrix_instructions": 0}, "there is no matrix instruction"),
        ({"fast_matrix_instructions": 0}, "there is no wgmma.mma_async"),
        ({"narrowest_load": 0}, "a main loop has no load that is recognised"),
        ({"narrowest_load": 8}, "a main loop loads 8 bytes at a time, not 16"),
        ({"blocks": 1}, "a multiprocessor holds 1 blocks, not 2"),
    ],
)
def test_each_problem_is_named(change: dict[str, int], problem: str) -> None:
    assert kernels_aot.problems(_expand(), replace(GOOD, **change), H200) == [problem]


def test_float32_needs_a_matrix_instruction_of_any_kind() -> None:
    compiled = replace(GOOD, fast_matrix_instructions=0)
    assert kernels_aot.problems(_expand(dtype="float32"), compiled, H200) == []


@pytest.mark.parametrize(
    ("d_in", "options", "bytes_"),
    [
        (768, {}, 16),
        (588, {}, 8),
        (588, {"dtype": "float32"}, 16),
        (768, {"packed": True}, 8),
        (768, {"packed": True, "dtype": "float32"}, 4),
        (588, {"packed": True}, 4),
    ],
)
def test_loads_are_as_wide_as_the_rows_allow(d_in: int, options: dict[str, object], bytes_: int) -> None:
    variant = product_variant("expand", 1024, d_in, **options)  # type: ignore[arg-type]
    assert kernels_aot.widest_load(variant) == bytes_


# The example of the CUDA C++ Programming Guide: blocks of 512 threads with 64 registers each fit twice, and
# with one register more there is room for one.
@pytest.mark.parametrize(("registers", "blocks"), [(64, 2), (65, 1)])
def test_registers_limit_how_many_blocks_there_are(registers: int, blocks: int) -> None:
    found = blocks_per_multiprocessor(H200, num_warps=16, registers=registers, shared_bytes=0)
    assert found == blocks


@pytest.mark.parametrize(
    ("architecture", "taken", "blocks"),
    [
        ("sm_90a", {"num_warps": 4, "registers": 32, "shared_bytes": 0}, 16),  # 64 warps
        ("sm_89", {"num_warps": 4, "registers": 32, "shared_bytes": 0}, 12),  # 48 warps
        ("sm_89", {"num_warps": 1, "registers": 32, "shared_bytes": 0}, 24),  # slots
        ("sm_90a", {"num_warps": 4, "registers": 32, "shared_bytes": 113 << 10}, 2),
        ("sm_90a", {"num_warps": 4, "registers": 32, "shared_bytes": (113 << 10) + 1}, 1),
        ("sm_100", {"num_warps": 4, "registers": 32, "shared_bytes": 0, "tensor_columns": 256}, 2),
        ("gfx942", {"num_warps": 4, "registers": 128, "shared_bytes": 32 << 10}, 2),
        ("gfx942", {"num_warps": 4, "registers": 129, "shared_bytes": 0}, 3),
    ],
)
def test_each_resource_limits_how_many_blocks_there_are(
    architecture: str, taken: dict[str, int], blocks: int
) -> None:
    assert blocks_per_multiprocessor(TARGETS[architecture], **taken) == blocks


@pytest.mark.parametrize(
    ("instruction", "size"),
    [
        ("cp.async.cg.shared.global [ %r88 + 0 ], [ %rd41 + 0 ], 0x10, %r89;", 16),
        ("@%p2 cp.async.ca.shared.global [ %r88 + 0 ], [ %rd41 + 0 ], 0x4, 0x4;", 4),
        ("@%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];", 16),
        ("ld.global.L1::evict_last.b16 { %rs1 }, [ %rd1 + 0 ];", 2),
        ("ld.shared.v4.b32 {%r1, %r2, %r3, %r4}, [%r5];", 0),
        ("global_load_dwordx4 v[6:9], v[4:5], off", 16),
        ("buffer_load_ushort v36, v93, s[4:7], 0 offen", 2),
        ("global_load_sbyte v1, v[2:3], off", 1),
        ("s_load_dwordx2 s[2:3], s[0:1], 0x0", 0),
    ],
)
def test_what_an_instruction_loads(instruction: str, size: int) -> None:
    assert loaded_bytes(instruction) == size


PTX = """
    ld.global.b32 { %r1 }, [ %rd1 + 0 ];
$L__BB0_1: // the segments
    ld.global.b64 { %rd3 }, [ %rd2 + 0 ];
    @%p1 bra $L__BB0_4;
$L__BB0_2: // along d_in
    cp.async.cg.shared.global [ %r8 + 0 ], [ %rd4 + 0 ], 0x8, %r9;
    @%p2 bra $L__BB0_3;
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {}, {}, {}, {};
$L__BB0_3:
    cp.async.cg.shared.global [ %r8 + 0 ], [ %rd4 + 0 ], 0x10, %r9;
    @%p3 bra $L__BB0_2;
$L__BB0_4: // nothing is multiplied
    ld.global.b16 { %rs1 }, [ %rd5 + 0 ];
    @%p4 bra $L__BB0_4;
    @%p5 bra $L__BB0_1;
    ret;
"""


def test_the_loads_of_a_main_loop_are_those_of_the_innermost_loop_that_multiplies() -> None:
    (loop,) = product_loops(PTX)
    assert loop.loads == {8: 1, 16: 1}


def _loop(**loads: int) -> str:
    copies = [
        f"cp.async.ca.shared.global [ %r8 + 0 ], [ %rd4 + 0 ], {name.removeprefix('of_')}, 4;"
        for name, count in loads.items()
        for _ in range(count)
    ]
    return "\n".join(
        ["ld.param.b64 %rd4;", "$L__BB0_1:", *copies, "mma.sync.aligned;", "@%p1 bra $L__BB0_1;", "ret;"]
    )


# A thread's share of the tile in float32 is four loads of 16 bytes of x and two of V.
@pytest.mark.parametrize(
    ("loads", "narrowest"),
    [
        ({"of_16": 6}, 16),
        ({"of_16": 6, "of_4": 2}, 16),
        ({"of_16": 2, "of_4": 2 + 16}, 4),  # x number by number
        ({"of_16": 4, "of_4": 2 + 8}, 4),  # V number by number
        ({"of_16": 6, "of_4": 3}, 4),
        ({"of_16": 2, "of_8": 8, "of_4": 2}, 8),
        ({"of_4": 2}, 0),
    ],
)
def test_a_layer_norms_vectors_are_told_from_rows(loads: dict[str, int], narrowest: int) -> None:
    behind_norm = product_variant("shrink", 2304, 768, dtype="float32", NORM=True)
    assert narrowest_load(_loop(**loads), behind_norm) == narrowest
    assert kernels_aot.widest_load(behind_norm) == 16
    of_16_bits = product_variant("shrink", 2304, 768, NORM=True)
    for other in (product_variant("shrink", 2304, 768, dtype="float32"), of_16_bits):
        assert narrowest_load(_loop(**loads), other) == min(int(name.removeprefix("of_")) for name in loads)


def test_without_a_product_there_is_no_main_loop() -> None:
    assert product_loops(PTX.replace("mma.sync", "fma.rn")) == []
    assert Loop(("ret;",)).loads == {}
