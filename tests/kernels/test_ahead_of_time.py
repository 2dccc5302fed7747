"""The kernels compile on a machine without a GPU for those that there are, fit them and use their cores.

`python -m benchmarks.kernels_aot` compiles them for every encoder and architecture; here are samples of both.
"""

from __future__ import annotations

import os

import pytest
from triton.compiler import CompilationError

from benchmarks.aot_compile import H200
from benchmarks.gpu_targets import ENCODERS, TARGETS
from benchmarks.kernels_aot import problems, product_variant, row_and_router_variants
from mass_serve.kernels.activations import ACTIVATIONS, Activation
from mass_serve.kernels.embedding.fused import added_rows_kernel, embedding_kernel
from mass_serve.kernels.energies.fused import energies_kernel
from mass_serve.kernels.gate.fused import gate_kernel
from mass_serve.kernels.layer_norm.fused import layer_norm_kernel
from mass_serve.kernels.low_rank.triton_kernels import expand_kernel, shrink_kernel
from mass_serve.kernels.positions.fused import positions_kernel
from mass_serve.kernels.residual.fused import coefficients_kernel, residuals_kernel
from mass_serve.kernels.tile_shapes import Kernel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled there"),
]


@pytest.mark.parametrize("architecture", TARGETS)
@pytest.mark.parametrize("kernel", ["expand", "shrink"])
def test_a_product_uses_the_matrix_cores_and_spills_nothing(architecture: str, kernel: Kernel) -> None:
    target = TARGETS[architecture]
    assert problems(product_variant(kernel, 768, 768, target=target), target) == []


@pytest.mark.parametrize("encoder", ["ViT-L/14", "ViT-S/14", "ModernBERT"])
@pytest.mark.parametrize("packed", [False, True])
def test_products_of_other_sizes_do_too(encoder: str, packed: bool) -> None:
    d_out, d_in = ENCODERS[encoder].linears["fc1" if encoder == "ModernBERT" else "patches"]
    kernels: tuple[Kernel, ...] = ("expand", "shrink")
    for kernel in kernels:
        assert problems(product_variant(kernel, d_out, d_in, packed=packed), H200) == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_compiles(activation: Activation) -> None:
    assert problems(product_variant("expand", 3072, 768, ACTIVATION=activation), H200) == []


def test_an_unknown_activation_does_not_compile() -> None:
    with pytest.raises(CompilationError) as error:
        product_variant("expand", 768, 768, ACTIVATION="relu")
    assert "no such activation" in str(error.value.__cause__)


def test_the_other_kernels_spill_nothing() -> None:
    compiled = list(row_and_router_variants())
    assert len(compiled) == 10
    assert [problems(one, H200) for one in compiled] == [[]] * 10


@pytest.mark.parametrize(
    "kernel",
    [
        *(expand_kernel, shrink_kernel, layer_norm_kernel, positions_kernel, energies_kernel),
        *(embedding_kernel, added_rows_kernel, gate_kernel, coefficients_kernel, residuals_kernel),
    ],
    ids=lambda kernel: kernel.__name__,
)
def test_what_follows_from_a_batch_specialises_no_kernel(kernel: object) -> None:
    varying = {"num_tiles", "record_length", "field", "tokens", "num_tasks", "batch", "elements", "before"}
    parameters = {one.name: one.do_not_specialize for one in kernel.params}  # type: ignore[attr-defined]
    assert all(parameters[name] for name in varying & parameters.keys())
    assert varying & parameters.keys()
