"""The fused passes against the reference's, pass after pass with other segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import (
    DenseWeights,
    ExpertBank,
    ExpertSet,
    Passes,
    encode,
    first_pass_parameters,
    passes_for,
    patchify,
)
from mass_serve.kernels import group_by_expert_set
from mass_serve.kernels.backend import backend
from tests import tiny
from tests.interpreter import DEVICE, INTERPRETED

# Small, because the interpreter is slow.
CONFIG = replace(tiny.CONFIG, image_size=16, depth=2)
LAYER = 1
MIXES: list[list[tuple[int, ...]]] = [
    [(0,), (2,), (0, 2), (1,), (0, 1, 3)],
    [(3,), (3,), (1, 2), (1, 2), (0, 1, 2), (0,)],  # more samples: the same plan, filled otherwise
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A planned pass is not divided among threads; on a GPU no pass is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _bank(device: torch.device, dtype: torch.dtype, dense: str = "-") -> ExpertBank:
    weights = {name: tensor.to(device) for name, tensor in tiny.pretrained(CONFIG, dtype).items()}
    return tiny.bank(CONFIG, weights, tasks=4, dense=dense)


def _passes(bank: ExpertBank) -> Passes:
    weights = bank.merged_parameters(first_pass_parameters(bank.pretrained, LAYER), range(4))
    return passes_for(bank, weights, LAYER, "class", max_set_size=3)


def _second(passes: Passes, sets: Sequence[ExpertSet], offsets: Sequence[int], patches: Tensor) -> Tensor:
    return passes.second(patches.to(sets[0].vectors["class_embedding"].device), sets, offsets).cpu()


@pytest.mark.parametrize(
    ("dtype", "tolerance", "dense"),
    [(torch.float32, 1e-5, "-"), (torch.float32, 1e-5, "patch_embedding"), (torch.bfloat16, 3e-2, "-")],
)
@torch.inference_mode()
def test_the_fused_passes_agree_with_the_reference(dtype: torch.dtype, tolerance: float, dense: str) -> None:
    """Low-rank and merged sets together, with cores folded and patch embeddings averaged or not."""
    torch.manual_seed(0)
    reference_bank = _bank(torch.device("cpu"), dtype, dense)
    reference = _passes(reference_bank)
    with backend("fused"):
        bank = _bank(DEVICE, dtype, dense)
        fused = _passes(bank)
    for mix in MIXES:
        segments = group_by_expert_set(mix)
        keys, offsets = segments.segment_expert_sets, segments.segment_offsets
        pixels = torch.randn(len(mix), 3, 16, 16).to(dtype)
        patches = patchify(pixels, CONFIG.patch_size)
        forms = [i % 3 == 2 for i in range(len(keys))]
        wanted_sets, own_sets = (
            [b.expert_set(key, materialised=m) for key, m in zip(keys, forms, strict=True)]
            for b in (reference_bank, bank)
        )
        wanted = _second(reference, wanted_sets, offsets, patches)
        with backend("fused"):
            found = _second(fused, own_sets, offsets, patches)
            features = fused.first(patches.to(DEVICE)).cpu()
        assert (found - wanted).norm() < tolerance * wanted.norm()
        expected = reference.first(patches)
        assert (features - expected).norm() < tolerance * expected.norm()


@pytest.mark.skipif(INTERPRETED, reason="in NumPy's products a row's bits depend on its place in the tile")
@torch.inference_mode()
def test_a_sample_has_the_same_bits_in_every_batch() -> None:
    bank = _bank(DEVICE, torch.bfloat16)
    passes, mix = _passes(bank), sorted(MIXES[1])
    patches = patchify(torch.randn(len(mix), 3, 16, 16).bfloat16(), CONFIG.patch_size)
    segments = group_by_expert_set(mix)
    sets = [bank.expert_set(key, materialised=False) for key in segments.segment_expert_sets]
    together = _second(passes, sets, segments.segment_offsets, patches)
    for sample, key in enumerate(mix):
        own = sets[segments.segment_expert_sets.index(key)]
        alone = _second(passes, [own], (0, 1), patches[sample : sample + 1])
        assert torch.equal(alone[0], together[sample])


@torch.inference_mode()
def test_the_announced_size_of_a_folded_set_is_its_size() -> None:
    with backend("fused"):
        bank = _bank(DEVICE, torch.float32)
        for tasks in [(1,), (0, 3), (0, 1, 2)]:
            expert_set = bank.expert_set(tasks, materialised=False)
            assert expert_set.nbytes == bank.expert_set_nbytes(len(tasks), materialised=False)


@pytest.mark.parametrize(
    ("noise", "dtype", "tolerance"), [(1e-3, torch.float32, 2e-3), (1e-3, torch.bfloat16, 5e-2)]
)
@torch.inference_mode()
def test_nearly_equal_tasks_run_low_rank_as_they_run_merged(
    noise: float, dtype: torch.dtype, tolerance: float
) -> None:
    """Large numbers cancel in the cores of such tasks; relative to what the experts change at all."""
    torch.manual_seed(0)
    weights = {name: tensor.to(DEVICE) for name, tensor in tiny.pretrained(CONFIG, dtype).items()}
    with backend("fused"):
        bank = tiny.nearly_equal_tasks(CONFIG, weights, noise)
        passes = passes_for(bank, weights, LAYER, "class", max_set_size=2)
        patches = patchify(torch.randn(3, 3, 16, 16), CONFIG.patch_size).to(dtype)
        low_rank, merged = (
            _second(passes, [bank.expert_set((0, 1), materialised=m)], (0, 3), patches).double()
            for m in (False, True)
        )
    with backend("reference"):
        plain = encode(CONFIG, DenseWeights(weights, 1e-5), patches.to(DEVICE)).cpu().double()
    assert (low_rank - merged).norm() < tolerance * (merged - plain).norm()
