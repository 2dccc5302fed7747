"""The fused passes against the reference's, pass after pass with other segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import (
    DenseWeights,
    ExpertBank,
    ExpertSet,
    Feature,
    Passes,
    PatchEmbedding,
    Probe,
    passes_for,
    patchify,
    run,
    weight_of,
)
from mass_serve.backbone.architecture import Token
from mass_serve.backbone.planned_passes import PlannedPasses
from mass_serve.backbone.shares import SAMPLES_PER_SHARE
from mass_serve.kernels import TaskDirections, group_by_expert_set
from mass_serve.kernels.backend import backend
from tests import tiny
from tests.encoders import ENCODERS
from tests.interpreter import DEVICE, INTERPRETED

# Small, because the interpreter is slow.
CONFIG = replace(tiny.CONFIG, embedding=PatchEmbedding(image_size=16, patch_size=8), depth=2)
LAYER, STOP = 1, 1
MIXES: list[list[tuple[int, ...]]] = [
    [(0,), (2,), (0, 2), (1,), (0, 1, 3)],
    [(3,), (3,), (1, 2), (1, 2), (0, 1, 2), (0,)],  # more samples: the same plan, filled otherwise
]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _bank(device: torch.device, dtype: torch.dtype, dense: str = "-") -> ExpertBank:
    weights = {name: tensor.to(device) for name, tensor in tiny.pretrained(CONFIG, dtype).items()}
    return tiny.bank(CONFIG, weights, tasks=4, dense=dense)


def _passes(bank: ExpertBank) -> Passes:
    return passes_for(bank, bank.merged_parameters(list(bank.pretrained), range(4)), max_set_size=3)


def _bases(bank: ExpertBank) -> dict[str, TaskDirections]:
    """Subspaces that a router would look at, in the dtype that a GPU has them in.

    Orthonormal rows are not asked for here.
    """
    dtype = next(iter(bank.pretrained.values())).dtype
    return {
        linear: TaskDirections.of(list(bank.leading_rows(weight_of(linear), range(4)).float()), dtype=dtype)
        for linear in CONFIG.early_linears(STOP)
    }


def _second(
    passes: Passes, sets: Sequence[ExpertSet], offsets: Sequence[int], x: Tensor, start: int | None = None
) -> Tensor:
    device = sets[0].vectors[CONFIG.patches.class_token].device
    return passes.second(x.to(device), sets, offsets, start).cpu()


def _near(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    return bool((found.cpu() - wanted).norm() < tolerance * wanted.norm())


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
        patches = patchify(pixels, CONFIG.patches.patch_size)
        forms = [i % 3 == 2 for i in range(len(keys))]
        wanted_sets, own_sets = (
            [b.expert_set(key, materialised=m) for key, m in zip(keys, forms, strict=True)]
            for b in (reference_bank, bank)
        )
        wanted = _second(reference, wanted_sets, offsets, patches)
        with backend("fused"):
            found = _second(fused, own_sets, offsets, patches)
        assert _near(found, wanted, tolerance)


@torch.inference_mode()
def test_tasks_of_ranks_of_their_own_share_a_fused_pass() -> None:
    """And linears that all tasks, or some of a set's, left alone, and a set of no task: it is pretrained."""
    _assert_ragged_tasks_share_a_pass(tiny.ragged_bank)


@torch.inference_mode()
def test_tasks_of_packed_and_plain_blocks_share_a_fused_pass() -> None:
    _assert_ragged_tasks_share_a_pass(tiny.packed_bank)


def _assert_ragged_tasks_share_a_pass(bank_of_tasks: Callable[..., ExpertBank]) -> None:
    torch.manual_seed(0)
    mix: list[tuple[int, ...]] = [(), (0,), (0, 1), (0, 1, 3), (2,), (3,)]
    patches = patchify(torch.randn(len(mix), 3, 16, 16), CONFIG.patches.patch_size)
    weights = tiny.pretrained(CONFIG)
    reference_bank = bank_of_tasks(CONFIG, weights, tasks=4)
    wanted_sets = [reference_bank.expert_set(tasks, materialised=False) for tasks in mix]
    wanted = _second(passes_for(reference_bank, weights, 3), wanted_sets, range(len(mix) + 1), patches)
    with backend("fused"):
        moved = {name: tensor.to(DEVICE) for name, tensor in weights.items()}
        bank = bank_of_tasks(CONFIG, moved, tasks=4)
        sets = [bank.expert_set(tasks, materialised=tasks == (2,)) for tasks in mix]
        assert all(
            own.nbytes == bank.expert_set_nbytes(tasks, materialised=tasks == (2,))
            for own, tasks in zip(sets, mix, strict=True)
        )
        found = _second(passes_for(bank, moved, 3), sets, range(len(mix) + 1), patches)
    assert _near(found, wanted, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("token", ["class", "mean"])
@torch.inference_mode()
def test_every_part_of_a_pass_is_planned_and_agrees(
    dtype: torch.dtype, tolerance: float, token: Token
) -> None:
    """The paper's first pass, early evidence, the rest of that pass, and a second pass from there."""
    torch.manual_seed(0)
    reference_bank, feature = _bank(torch.device("cpu"), dtype), Probe(feature=Feature(LAYER, token))
    reference, energies = _passes(reference_bank), Probe(_bases(reference_bank))
    with backend("fused"):
        bank = _bank(DEVICE, dtype)
        fused, own_energies = _passes(bank), Probe(_bases(bank))
    assert isinstance(fused, PlannedPasses)
    for mix in MIXES:
        segments = group_by_expert_set(mix)
        keys, offsets = segments.segment_expert_sets, segments.segment_offsets
        patches = patchify(torch.randn(len(mix), 3, 16, 16).to(dtype), CONFIG.patches.patch_size)
        sets, own_sets = (
            [b.expert_set(key, materialised=False) for key in keys] for b in (reference_bank, bank)
        )
        begun = reference.first(patches, stop=STOP, probe=energies)
        ended = reference.first(begun.tokens, start=STOP, probe=feature)
        papers = reference.first(patches, stop="feature", probe=feature)
        resumed = _second(reference, sets, offsets, begun.tokens, STOP)
        with backend("fused"):
            own_begun = fused.first(patches.to(DEVICE), stop=STOP, probe=own_energies)
            own_ended = fused.first(begun.tokens.to(DEVICE), start=STOP, probe=feature)
            own_papers = fused.first(patches.to(DEVICE), stop="feature", probe=feature)
            own_resumed = _second(fused, own_sets, offsets, begun.tokens, STOP)
        assert _near(own_begun.tokens, begun.tokens, tolerance)
        assert _near(own_begun.energies, begun.energies, tolerance)
        assert _near(own_ended.feature, ended.feature, tolerance)
        assert _near(own_ended.embedding, ended.embedding, tolerance)
        assert _near(own_papers.feature, papers.feature, tolerance)
        assert _near(own_resumed, resumed, tolerance)


@pytest.mark.parametrize("name", ENCODERS)
@torch.inference_mode()
def test_every_choice_of_parts_is_planned_and_agrees(name: str) -> None:
    """A first pass with the router's feature, and a second pass with low-rank and merged sets."""
    torch.manual_seed(0)
    config = replace(ENCODERS[name], depth=1)
    weights = tiny.pretrained(config)
    reference_bank = tiny.bank(config, weights, tasks=3)
    reference, probe = passes_for(reference_bank, weights, 2), Probe(feature=Feature(0, config.tokens[-1]))
    with backend("fused"):
        moved = {parameter: tensor.to(DEVICE) for parameter, tensor in weights.items()}
        bank = tiny.bank(config, moved, tasks=3)
        fused = passes_for(bank, moved, 2)
    patches = patchify(torch.randn(4, 3, 32, 32), config.patches.patch_size)
    keys, offsets = [(0,), (0, 2), (1,)], (0, 1, 3, 4)
    sets, own_sets = (
        [b.expert_set(key, materialised=key == (1,)) for key in keys] for b in (reference_bank, bank)
    )
    wanted, wanted_second = reference.first(patches, probe=probe), reference.second(patches, sets, offsets)
    with backend("fused"):
        found = fused.first(patches.to(DEVICE), probe=probe)
        second = fused.second(patches.to(DEVICE), own_sets, offsets)
    assert _near(found.embedding, wanted.embedding, 1e-5)
    assert _near(found.feature, wanted.feature, 1e-5)
    assert _near(second, wanted_second, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@torch.inference_mode()
def test_a_pass_whose_tokens_share_mlps_is_planned_and_agrees(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, depth=3)
    patches = patchify(torch.randn(5, 3, 16, 16).to(dtype), config.patches.patch_size)
    weights = tiny.pretrained(config, dtype)
    reference = passes_for(tiny.bank(config, weights, tasks=2), weights, 1)
    begun = reference.first(patches, stop=STOP)
    wanted = reference.first(begun.tokens, start=STOP, mlp_share=0.5).embedding
    with backend("fused"):
        moved = {parameter: tensor.to(DEVICE) for parameter, tensor in weights.items()}
        fused = passes_for(tiny.bank(config, moved, tasks=2), moved, 1)
        found = fused.first(begun.tokens.to(DEVICE), start=STOP, mlp_share=0.5).embedding
        whole = fused.first(begun.tokens.to(DEVICE), start=STOP).embedding
    assert _near(found, wanted, tolerance)
    assert not _near(whole, wanted, tolerance)


@torch.inference_mode()
def test_a_pass_is_planned_once_for_equal_probes() -> None:
    with backend("fused"):
        bank = _bank(DEVICE, torch.float32)
        passes, patches = _passes(bank), torch.randn(1, 4, CONFIG.patches.patch_width, device=DEVICE)
        assert isinstance(passes, PlannedPasses)
        bases = _bases(bank)
        for probe in (Probe(bases), Probe(dict(bases)), Probe(feature=Feature(0, "class"))):
            passes.first(patches, stop=STOP, probe=probe)
        assert len(passes._planned) == 2


@pytest.mark.usefixtures("two_threads")
@torch.inference_mode()
def test_a_planned_pass_is_not_divided_among_threads() -> None:
    """Whoever has a part of a plan's samples has none of its tiles."""
    torch.manual_seed(0)
    patches = torch.randn(2 * SAMPLES_PER_SHARE, 4, CONFIG.patches.patch_width)
    reference_bank = _bank(torch.device("cpu"), torch.float32)
    probe = Probe(_bases(reference_bank))
    wanted = _passes(reference_bank).first(patches, stop=STOP, probe=probe)
    with backend("fused"):
        bank = _bank(DEVICE, torch.float32)
        passes = _passes(bank)
        found = passes.first(patches.to(DEVICE), stop=STOP, probe=Probe(_bases(bank)))
    assert isinstance(passes, PlannedPasses)
    assert _near(found.tokens, wanted.tokens, 1e-5)
    assert _near(found.energies, wanted.energies, 1e-5)


@torch.inference_mode()
def test_a_first_pass_needs_only_the_parameters_that_it_reads() -> None:
    with backend("fused"):
        bank, probe = _bank(DEVICE, torch.float32), Probe(feature=Feature(0, "class"))
        patches = torch.randn(2, 4, CONFIG.patches.patch_width, device=DEVICE)
        names = CONFIG.first_pass_parameters(bank.pretrained, 0)
        part = passes_for(bank, {name: bank.pretrained[name] for name in names}, max_set_size=1)
        whole = passes_for(bank, bank.pretrained, max_set_size=1)
        found, wanted = (p.first(patches, stop="feature", probe=probe).feature for p in (part, whole))
    assert torch.equal(found, wanted)


@pytest.mark.skipif(INTERPRETED, reason="in NumPy's products a row's bits depend on its place in the tile")
@torch.inference_mode()
def test_a_sample_has_the_same_bits_in_every_batch() -> None:
    bank = _bank(DEVICE, torch.bfloat16)
    passes, mix = _passes(bank), sorted(MIXES[1])
    patches = patchify(torch.randn(len(mix), 3, 16, 16).bfloat16(), CONFIG.patches.patch_size)
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
            assert expert_set.nbytes == bank.expert_set_nbytes(tasks, materialised=False)


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
        passes = passes_for(bank, weights, max_set_size=2)
        patches = patchify(torch.randn(3, 3, 16, 16), CONFIG.patches.patch_size).to(dtype)
        low_rank, merged = (
            _second(passes, [bank.expert_set((0, 1), materialised=m)], (0, 3), patches).double()
            for m in (False, True)
        )
    with backend("reference"):
        plain = run(CONFIG, DenseWeights(weights), patches.to(DEVICE)).embedding.cpu().double()
    assert (low_rank - merged).norm() < tolerance * (merged - plain).norm()
