"""Time of the second pass by the format of blocks, at the sizes of CLIP ViT-B/32, as ratios within one run.

    python -m benchmarks.packed_speed [--json FILE] [--rounds N]

Every image of a batch is of one task, whose blocks are random: what is in them takes no time. Times are the
least processor seconds over rounds in which the formats take turns, each over that of float32 blocks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.random_models import VIT_B_32, random_parameters
from benchmarks.timing import minima
from mass_serve.backbone import ExpertBank, run
from mass_serve.backbone.weights.segmented import SegmentedWeights
from mass_serve.merging import TaskSingularVectors, rank_for
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.block_formats import BLOCK_FORMS

BATCHES = (1, 8, 32)
FORMATS: tuple[BlockFormat, ...] = ("float32", "bfloat16", "int8", "int4")
SHARES = (1 / 8, 2 / 8)  # of the full rank


def bank_of(
    pretrained: Mapping[str, Tensor], share: float, block_format: BlockFormat, generator: torch.Generator
) -> ExpertBank:
    """A bank of one task that changed every matrix."""
    shapes = VIT_B_32.matrix_shapes()
    ranks = {name: rank_for(shape, share) for name, shape in shapes.items()}
    vectors = {
        name: BLOCK_FORMS[block_format].kept(random_vectors(shapes[name], rank, generator))
        for name, rank in ranks.items()
    }
    bank = ExpertBank(VIT_B_32, pretrained, [ranks])
    bank.set_task(0, vectors, {name: torch.zeros_like(pretrained[name]) for name in pretrained})
    return bank


def random_vectors(shape: tuple[int, int], rank: int, generator: torch.Generator) -> TaskSingularVectors:
    u, vh = (torch.randn(*sides, generator=generator) for sides in ((shape[0], rank), (rank, shape[1])))
    return TaskSingularVectors(u / shape[0] ** 0.5, torch.full((rank,), 0.1), vh / shape[1] ** 0.5)


def second_pass(bank: ExpertBank, images: int) -> Callable[[], object]:
    """A pass of so many images of the bank's task."""
    embedding = VIT_B_32.patches
    tokens = (embedding.image_size // embedding.patch_size) ** 2
    patches = torch.randn(images, tokens, 3 * embedding.patch_size**2)
    weights = SegmentedWeights(bank, [bank.expert_set((0,), materialised=False)], (0, images))
    return partial(_run, weights, patches)


@torch.inference_mode()
def _run(weights: SegmentedWeights, patches: Tensor) -> object:
    return run(VIT_B_32, weights, patches)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.packed_speed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)  # one thread's seconds do not depend on what else the machine does
    generator = torch.Generator().manual_seed(0)
    pretrained = random_parameters(VIT_B_32, generator)
    recorded = {}
    for share in SHARES:
        banks = {name: bank_of(pretrained, share, name, generator) for name in FORMATS}
        for images in BATCHES:
            times = minima({name: second_pass(bank, images) for name, bank in banks.items()}, options.rounds)
            ratios = {name: seconds / times["float32"] for name, seconds in times.items()}
            row = {"share": share, "images": images, "float32_seconds": times["float32"], **ratios}
            recorded[f"{share:g} of the rank, {images} images"] = row
            line = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
            print(f"rank {share:g} of the full one, {images} images: {line}", flush=True)
        sizes = ", ".join(f"{name} {bank.nbytes / 1e6:.1f} MB" for name, bank in banks.items())
        print(f"rank {share:g} of the full one, a task in memory: {sizes}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(recorded, indent=2) + "\n")


if __name__ == "__main__":
    main()
