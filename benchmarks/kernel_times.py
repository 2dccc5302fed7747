"""Each matrix kernel on one GPU over its floor and over the same work done in separate products.

    python -m benchmarks.kernel_times --json benchmarks/results/kernels_gpu.json

For every linear of ViT-B/16 in a mixed batch of 64: the fused kernels, PyTorch's base product alone (cuBLAS),
base product and per-segment shrink and expand by PyTorch, and the same with the core kept apart instead of
folded into the blocks; of a linear behind a LayerNorm also the fused kernels with it, in shrink and in a
kernel of its own. The floor is the larger of operations over the measured matrix rate and bytes over the
measured copy bandwidth. All are replayed from CUDA graphs. Without an NVIDIA GPU it ends with exit code 2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_models import VITS, relative_error
from benchmarks.gpu_timing import ceilings, graphed, medians, need_cuda
from mass_serve.backbone.architecture import Architecture, weight_of
from mass_serve.kernels import FoldedSides
from mass_serve.kernels.layer_norm.fused import planned_layer_norm
from mass_serve.kernels.low_rank.fused import planned_linear, planned_norm
from mass_serve.kernels.low_rank.places import LinearPlace, linear_fields
from mass_serve.kernels.records import LinearField, NormField, norm_fields, record
from mass_serve.kernels.segment_plan import SegmentPlan

BATCH = 64
SETS = 20
# (tasks of the store, tasks of a set)
EXPERTS = ((20, 1), (20, 3), (8, 1), (8, 3))
BUDGET = 0.3
AGREEMENT = 2e-2
SAME = (("fused", "separate"), ("LayerNorm in shrink", "LayerNorm apart"))
BEHIND_A_NORM = ("qkv", "fc1")
EPS = 1e-5
NORM = len(LinearField)  # where the LayerNorm's fields begin in a record


@dataclass(frozen=True)
class Case:
    """One linear in a mixed batch of folded low-rank segments."""

    x: Tensor  # [N, d_in]
    weight: Tensor
    deltas: list[FoldedSides]
    cores: list[Tensor]  # [K, K] float32: what a core that is kept apart would multiply by
    offsets: list[int]  # in samples
    tokens: int
    norm: tuple[Tensor, Tensor] | None = None  # weight and bias [d_in] of a LayerNorm before it

    @classmethod
    def random(
        cls,
        samples: int,
        tokens: int,
        shape: tuple[int, int],
        rank: int,
        sets: int,
        device: torch.device,
        *,
        behind_norm: bool = False,
    ) -> Case:
        """Random numbers of those sizes, in bfloat16."""
        d_out, d_in = shape

        def noise(*sizes: int) -> Tensor:
            return torch.randn(sizes, device=device).mul_(float(sizes[-1]) ** -0.5).bfloat16()

        deltas = [FoldedSides(noise(rank, d_in), noise(rank, d_out), bias=noise(d_out)) for _ in range(sets)]
        cores = [torch.randn(rank, rank, device=device) / rank**0.5 for _ in range(sets)]
        offsets = [samples * i // sets for i in range(sets + 1)]
        norm = (noise(d_in) + 1, noise(d_in)) if behind_norm else None
        return cls(noise(samples * tokens, d_in), noise(d_out, d_in), deltas, cores, offsets, tokens, norm)

    def variants(self) -> dict[str, Callable[[], object]]:
        """The ways to compute it."""
        place, plan = self._plan()

        def fused() -> Tensor:
            return planned_linear(self.x, plan, place, tokens=self.tokens)

        def norm_in_shrink() -> Tensor:
            rows, h = planned_norm(self.x, plan, place, NORM, tokens=self.tokens, eps=EPS)
            return planned_linear(rows, plan, place, tokens=self.tokens, shrunk=h)

        def norm_apart() -> Tensor:
            rows = planned_layer_norm(self.x, plan, field=NORM, tokens=self.tokens, eps=EPS)
            return planned_linear(rows, plan, place, tokens=self.tokens)

        variants: dict[str, Callable[[], object]] = {
            "fused": fused,
            "base alone": lambda: F.linear(self.x, self.weight),
            "separate": lambda: self.separate(apart=False),
            "separate, core apart": lambda: self.separate(apart=True),
        }
        if self.norm is not None:
            variants |= {"LayerNorm in shrink": norm_in_shrink, "LayerNorm apart": norm_apart}
        return variants

    def _plan(self) -> tuple[LinearPlace, SegmentPlan]:
        length = len(LinearField) + len(NormField)
        norms = {} if self.norm is None else {NORM: norm_fields(*self.norm)}
        records = [record(length, {0: linear_fields(delta, self.weight), **norms}) for delta in self.deltas]
        plan = SegmentPlan(self.offsets[-1], len(records), length, self.x.device)
        plan.update(self.offsets, records, [False] * len(records))
        rank = len(self.cores[0])
        d_out, d_in = self.weight.shape
        return LinearPlace(0, d_out, d_in, rank, rank, shared_weight=True), plan

    def separate(self, *, apart: bool) -> Tensor:
        """Base product, then for each segment shrink, the core where it is apart, and expand."""
        y = F.linear(self.x, self.weight)
        rows = [offset * self.tokens for offset in self.offsets]
        for delta, core, (start, stop) in zip(self.deltas, self.cores, pairwise(rows), strict=True):
            assert delta.bias is not None
            shrunk = self.x[start:stop] @ delta.right.T
            if apart:
                shrunk = (shrunk.float() @ core).to(shrunk.dtype)
            y[start:stop].add_(delta.bias).addmm_(shrunk, delta.left)
        return y

    def floor(self, limits: dict[str, float]) -> float:
        """Seconds that no way to compute it can beat, by the measured ceilings."""
        d_out, d_in = self.weight.shape
        rank, rows = len(self.cores[0]), len(self.x)
        operations = 2 * rows * (d_out * d_in + rank * (d_in + d_out))
        numbers = rows * (d_in + d_out) + d_out * d_in + len(self.deltas) * rank * (d_in + d_out)
        return max(
            operations / limits["matrix_operations_per_second"],
            self.x.element_size() * numbers / limits["copy_bytes_per_second"],
        )


def linears(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """[d_out, d_in] of a block's linears."""
    block, shapes = next(iter(architecture.blocks())), architecture.matrix_shapes()
    return {linear.rpartition(".")[2]: shapes[weight_of(linear)] for linear in block.linears}


def measure(
    case: Case, label: str, limits: dict[str, float], budget: float = BUDGET
) -> dict[str, float | dict[str, float]]:
    """Times of one case, over its floor. Raises AssertionError where ways to compute the same disagree."""
    variants = case.variants()
    for one, other in SAME:
        if one in variants:
            error = relative_error(case_output(variants[one]), case_output(variants[other]))
            if not error < AGREEMENT:
                raise AssertionError(f"{label}: {one} and {other} differ by {error:.1e}")
    times = medians(
        {name: graphed(run, case.x.device) for name, run in variants.items()}, case.x.device, budget
    )
    floor = case.floor(limits)
    print(f"{label:28s} floor {1e6 * floor:8.1f} us  " + "  ".join(_shown(times, floor)), flush=True)
    return {"floor_seconds": floor, "share_of_floor": floor / times["fused"], "seconds": times}


def case_output(run: Callable[[], object]) -> Tensor:
    """Returns what a variant computes."""
    output = run()
    assert isinstance(output, Tensor)
    return output


def _shown(times: dict[str, float], floor: float) -> Sequence[str]:
    return [f"{name} {1e6 * seconds:.1f} us ({floor / seconds:.2f})" for name, seconds in times.items()]


@torch.inference_mode()
def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    device = need_cuda()
    limits = ceilings(device)
    architecture = VITS["B/16"]
    figures = {}
    for tasks, size in EXPERTS:
        for name, shape in linears(architecture).items():
            rank = size * (min(shape) // tasks)
            label = f"{name} T {tasks} set size {size}"
            behind = name in BEHIND_A_NORM
            case = Case.random(BATCH, architecture.num_tokens, shape, rank, SETS, device, behind_norm=behind)
            figures[label] = measure(case, label, limits)
    if options.json is not None:
        content = {"device": torch.cuda.get_device_name(device), "ceilings": limits, "cases": figures}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
