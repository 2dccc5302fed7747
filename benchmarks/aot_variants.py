"""Which variants of the kernels the gate compiles: those that the linears and rows of encoders ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

import torch
import triton

from benchmarks.aot_compile import H200, TYPES, Variant
from benchmarks.gpu_targets import ENCODERS, Sizes, Target
from mass_serve.kernels.activation_names import ACTIVATIONS
from mass_serve.kernels.attention import fused as attention
from mass_serve.kernels.embedding import fused as embedding
from mass_serve.kernels.energies import fused as energies
from mass_serve.kernels.gate import fused as gate
from mass_serve.kernels.gpu_architecture import family_of, product_precision, warps_of
from mass_serve.kernels.heads import fused as heads
from mass_serve.kernels.heads.triton_kernels import products_kernel, scores_kernel
from mass_serve.kernels.layer_norm.fused import ROW_WARPS, layer_norm_kernel
from mass_serve.kernels.low_rank.fused import GROUP
from mass_serve.kernels.low_rank.triton_kernels import expand_kernel
from mass_serve.kernels.low_rank.triton_shrink import shrink_kernel
from mass_serve.kernels.packed_rows import bytes_of_row
from mass_serve.kernels.positions.fused import TOKEN_WARPS, positions_kernel
from mass_serve.kernels.records import ALIGNMENT, alignment
from mass_serve.kernels.residual import fused as residual
from mass_serve.kernels.tile_shapes import Entry, Kernel, nearest_entry, read_table

OF_EVERY_DTYPE = "ViT-L/14"  # the encoder whose products are compiled in all of them, others in the first
DTYPES = ("bfloat16", "float16", "float32")
TASKS = 8  # whose blocks have a rank of 1/8 of a matrix's


def all_variants(encoders: list[str], target: Target) -> Iterator[Variant]:
    """Yields the products of those encoders and all other kernels, each once."""
    seen: set[str] = set()
    widths = sorted({ENCODERS[name].width for name in encoders})
    variants = [one for name in encoders for one in product_variants(ENCODERS[name], target)]
    variants += [*activation_variants(target), *table_variants(target)]
    for one in [*variants, *(other for width in widths for other in row_variants(width, target))]:
        if (key := str(one.described())) not in seen:
            seen.add(key)
            yield one
    yield from router_variants(target)
    yield from head_variants(target)
    yield from attention_variants(target)


def product_variants(encoder: Sizes, target: Target = H200) -> Iterator[Variant]:
    """Yields both kernels of each linear, with the activation or skip connection that it has."""
    for name, (d_out, d_in) in encoder.linears.items():
        options: dict[str, Any] = {"ACTIVATION": encoder.activation} if name == "fc1" else {}
        options |= {"HAS_SKIP": True} if name in ("out", "fc2") else {}
        for dtype in DTYPES if encoder == ENCODERS[OF_EVERY_DTYPE] else DTYPES[:1]:
            for packed in (False, True):
                # Behind a LayerNorm or not: what one form spills says nothing of the other.
                for norm in (False, True) if name in ("qkv", "fc1") else (False,):
                    yield product_variant(
                        "shrink", d_out, d_in, dtype=dtype, packed=packed, target=target, NORM=norm
                    )
                yield product_variant(
                    "expand", d_out, d_in, dtype=dtype, packed=packed, target=target, **options
                )
            # The first pass has the shared weights alone.
            yield product_variant(
                "expand", d_out, d_in, dtype=dtype, target=target, LOW_RANK=False, **options
            )


def activation_variants(target: Target = H200) -> Iterator[Variant]:
    """Yields the expand kernel with every activation, those of other encoders' families among them."""
    d_out, d_in = ENCODERS[OF_EVERY_DTYPE].linears["fc1"]
    for activation in ACTIVATIONS:
        for packed in (False, True):
            yield product_variant("expand", d_out, d_in, packed=packed, target=target, ACTIVATION=activation)


def product_variant(
    kernel: Kernel,
    d_out: int,
    d_in: int,
    *,
    dtype: str = "bfloat16",
    packed: bool = False,
    target: Target = H200,
    **options: object,
) -> Variant:
    """The shrink or expand kernel of a linear, with the tile that the table has for that target."""
    columns = min(d_out, d_in) // TASKS if kernel == "shrink" else d_out
    names = family_of(target.architecture)
    entry = nearest_entry(kernel, dtype, columns, d_in, names, target.shared_bytes)
    return entry_variant(entry, d_out, d_in, dtype=dtype, packed=packed, target=target, **options)


def table_variants(target: Target) -> Iterator[Variant]:
    """Yields the product of each entry of the table that is for GPUs of the target's kind.

    Some are no linear's: an entry that was measured on one GPU holds for that one alone.
    """
    for entry, packed in product(entries_for(target), (False, True)):
        for norm in ({"NORM": False}, {"NORM": True}) if entry.kernel == "shrink" else ({},):
            yield entry_variant(
                entry, entry.columns, entry.d_in, dtype=entry.dtype, packed=packed, target=target, **norm
            )


def entries_for(target: Target) -> list[Entry]:
    """The entries of the table whose tiles are for GPUs of the target's kind."""
    return [entry for entry in read_table() if target.architecture in family_of(entry.architecture)]


def entry_variant(
    entry: Entry,
    d_out: int,
    d_in: int,
    *,
    dtype: str,
    packed: bool,
    target: Target,
    **options: object,
) -> Variant:
    """The kernel of an entry of the table for a linear, with its tile; shrink does not depend on d_out."""
    kernel = entry.kernel
    constants = _constants(entry, dtype, d_in, packed, target)
    side = d_in if kernel == "shrink" else d_out
    constants["RUN"] = alignment(1, side, bytes_of_row(side, 4))
    sizes = {"d_in": d_in, "d_out": d_out, "columns_of_y": d_out, "half": bytes_of_row(side, 4)}
    if kernel == "shrink":
        del constants["BLOCK_R"]
        constants["NORM"] = False
        compiled = shrink_kernel
    else:
        constants |= {"ALIGN_OUT": alignment(_itemsize(dtype), d_out), "GROUP": GROUP, "LOW_RANK": True}
        constants |= {"HAS_SKIP": False, "ACTIVATION": None}
        compiled = expand_kernel
    odd = {name: size for name, size in sizes.items() if size % 16}
    tile = entry.tile
    constants |= options
    return Variant(
        compiled,
        dtype,
        constants,
        tile.num_warps,
        tile.num_stages,
        tile.max_registers,
        odd,
        blocks=entry.blocks,
    )


def _constants(entry: Entry, dtype: str, d_in: int, packed: bool, target: Target) -> dict[str, Any]:
    blocks = {name.upper(): size for name, size in asdict(entry.tile).items() if name.startswith("block")}
    return blocks | {
        "EVEN_K": d_in % entry.tile.block_k == 0,
        "ALIGN_IN": alignment(_itemsize(dtype), d_in),
        "PACKED": packed,
        "UPCAST": False,
        "PRECISION": _precision(dtype, target),
    }


def _precision(dtype: str, target: Target) -> str:
    return product_precision(getattr(torch, dtype), target.architecture)


def _itemsize(dtype: str) -> int:
    size: int = getattr(torch, dtype).itemsize
    return size


def embedding_variant(dtype: str, *, packed: bool = False, target: Target = H200) -> Variant:
    """The kernel of words with low-rank changes. A word is a column of a side, of which it reads numbers."""
    constants = {
        "ROWS": embedding.BLOCK_ROWS,
        "COLUMNS": embedding.BLOCK_COLUMNS,
        "SUM": embedding.BLOCK_RANK,
        "PACKED": packed,
        "UPCAST": False,
        "PRECISION": _precision(dtype, target),
    }
    warps, stages = embedding.WARPS, embedding.STAGES
    return Variant(embedding.embedding_kernel, dtype, constants, warps, stages, gathers=True)


def row_variants(width: int, target: Target = H200) -> Iterator[Variant]:
    """Yields the kernels of rows of that width, in every dtype."""
    row = {"BLOCK": triton.next_power_of_2(width)}
    for dtype in DTYPES:
        yield Variant(embedding.added_rows_kernel, dtype, row, embedding.WARPS)
        yield Variant(layer_norm_kernel, dtype, row, ROW_WARPS)
        yield Variant(positions_kernel, dtype, row, TOKEN_WARPS)
        yield Variant(gate.gate_kernel, dtype, {"ACTIVATION": "silu", "BLOCK": gate.BLOCK}, 4)
        for packed in (False, True):
            yield embedding_variant(dtype, packed=packed, target=target)


def router_variants(target: Target = H200) -> Iterator[Variant]:
    """Yields the kernels of the router's evidence, which take features of every dtype."""
    architecture = target.architecture
    of_residuals = {
        "ROWS": residual.BLOCK_ROWS,
        "COLUMNS": residual.BLOCK_COLUMNS,
        "SUM": residual.BLOCK_SUM,
        "PRECISION": _precision("float32", target),
    }
    of_energies: dict[str, Any] = {
        "ROWS": energies.BLOCK_ROWS,
        "COLUMNS": energies.BLOCK_COLUMNS,
        "SUM": energies.BLOCK_SUM,
        "UPCAST": False,
    }
    for dtype in DTYPES:
        warps = warps_of(residual.THREADS, architecture)
        yield Variant(residual.coefficients_kernel, dtype, of_residuals, warps)
        # A row of coefficients has as many numbers as all ranks together.
        yield Variant(residual.residuals_kernel, dtype, of_residuals, warps, gathers=True)
        warps = warps_of(energies.THREADS, architecture)
        for profiled, in_parts in product((False, True), (False, True) if dtype == "bfloat16" else (False,)):
            constants = of_energies | {"PROFILED": profiled, "IN_PARTS": in_parts}
            constants |= {"PRECISION": _precision(dtype if in_parts else "float32", target)}
            # Those of many tasks are kept in float16.
            for directions in (dtype,) if in_parts else ("float32", "float16"):
                pointers = {"directions": TYPES[directions]}
                yield Variant(energies.energies_kernel, dtype, constants, warps, pointers=pointers)


def head_variants(target: Target = H200) -> Iterator[Variant]:
    """Yields the kernels of heads, whose embeddings are of every dtype; heads have few classes or many."""
    warps, of_float32 = warps_of(heads.THREADS, target.architecture), {"y": TYPES["float32"]}
    of_products = {"ALIGN": ALIGNMENT, "BLOCK": heads.BLOCK_CLASSES, "SUM": heads.BLOCK_SUM}
    for dtype in DTYPES:
        yield Variant(products_kernel, dtype, of_products, warps, pointers=of_float32)
    for most in (16, heads.MOST_COLUMNS):
        yield Variant(scores_kernel, "float32", {"BLOCK": most}, warps)


def attention_variants(target: Target = H200) -> Iterator[Variant]:
    """Yields attention for images and texts, for all tokens and the first alone, near keys and all."""
    for dtype in DTYPES:
        yield attention_variant(dtype, 64, target=target)
    for width in (32, 80):
        yield attention_variant("bfloat16", width, target=target)
    yield attention_variant("float32", 80, target=target)
    yield attention_variant("bfloat16", 64, target=target, RAGGED=True)
    yield attention_variant("bfloat16", 64, local=True, target=target, RAGGED=True)
    for ragged in (False, True):
        yield attention_variant(
            "bfloat16", 64, target=target, FIRST=True, RAGGED=ragged, BLOCK_M=attention.LEAST
        )


def attention_variant(
    dtype: str, width: int, *, local: bool = False, target: Target = H200, **options: object
) -> Variant:
    """The attention of all tokens of equally long samples, in heads of that width."""
    own = getattr(torch, dtype)
    constants = attention.constants_of(width, own, target.architecture, local=local)
    constants |= {
        "BLOCK_M": attention.block_queries(width, own),
        "FIRST": False,
        "RAGGED": False,
        "UPCAST": False,
    }
    warps, stages = attention.ATTENTION_WARPS, attention.ATTENTION_STAGES
    return Variant(attention.attention_kernel, dtype, constants | options, warps, stages)
