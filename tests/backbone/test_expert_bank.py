"""Experts in mixed batches against one explicit dense model for each sample, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import DenseWeights, ExpertBank, ExpertSet, patchify, run
from mass_serve.backbone.weights.segmented import SegmentedWeights
from mass_serve.kernels import BaseOnly, OneTask, SeveralTasks, SmallSides, group_by_expert_set
from mass_serve.kernels.low_rank.deltas import SMALL_WEIGHT
from mass_serve.merging import TaskSingularVectors
from tests import tiny
from tests.tiny import CONFIG

SETS = [(0,), (2,), (0, 2), (1,), (0, 1, 3), (0, 2), (3,), (2,), (0,)]


def _merged_in_float64(bank: ExpertBank, parameter: str, tasks: tuple[int, ...]) -> Tensor:
    """TSV-M by the definition: polar factors from a full SVD of the concatenation."""
    before = bank.pretrained[parameter].double()
    if parameter not in bank.ranks:
        return before + sum(bank.dense_delta(parameter, task).double() for task in tasks) / len(tasks)
    vectors = bank.singular_vectors(parameter, tasks)
    u = torch.cat([own.u for own in vectors], dim=1).double()
    vh = torch.cat([own.vh for own in vectors], dim=0).double()
    s = torch.cat([own.s for own in vectors]).double()
    if len(tasks) > 1:
        p, _, q = torch.linalg.svd(u, full_matrices=False)
        u = p @ q
        p, _, q = torch.linalg.svd(vh, full_matrices=False)
        vh = p @ q
    return before + (u * s) @ vh


def _forward(bank: ExpertBank, sets: list[tuple[int, ...]], patches: Tensor, *, materialised: bool) -> Tensor:
    segments = group_by_expert_set(sets)
    experts = [bank.expert_set(tasks, materialised=materialised) for tasks in segments.segment_expert_sets]
    weights = SegmentedWeights(bank, experts, segments.segment_offsets)
    order = torch.tensor(segments.permutation)
    embeddings = torch.empty(len(sets), CONFIG.embedding_dim, dtype=patches.dtype)
    embeddings[order] = run(CONFIG, weights, patches[order]).embedding
    return embeddings


KINDS = ["one rank", "ranks of their own", "packed and plain"]


@pytest.fixture(scope="module", params=KINDS)
def bank(request: pytest.FixtureRequest) -> ExpertBank:
    """Four tasks over an encoder whose linears are small."""
    return _bank(request.param)


@pytest.fixture(scope="module", params=KINDS)
def large_bank(request: pytest.FixtureRequest) -> Iterator[ExpertBank]:
    """The same with linears that count as large ones, whose blocks are shared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mass_serve.kernels.low_rank.deltas.SMALL_WEIGHT", 0)
        yield _bank(request.param)


def _bank(kind: str) -> ExpertBank:
    makers: dict[str, Callable[..., ExpertBank]] = {
        "one rank": tiny.bank,
        "ranks of their own": tiny.ragged_bank,
        "packed and plain": tiny.packed_bank,
    }
    return makers[kind](CONFIG, tiny.pretrained(CONFIG), tasks=4)


@pytest.fixture(scope="module")
def patches() -> Tensor:
    torch.manual_seed(3)
    return patchify(torch.randn(len(SETS), 3, 32, 32), CONFIG.patches.patch_size)


@pytest.fixture(scope="module")
def dense_models(bank: ExpertBank) -> dict[tuple[int, ...], DenseWeights]:
    """The merged model of each set."""
    return {
        tasks: DenseWeights({name: _merged_in_float64(bank, name, tasks) for name in bank.pretrained})
        for tasks in set(SETS)
    }


@pytest.mark.parametrize("materialised", [False, True])
@torch.inference_mode()
def test_every_sample_gets_its_own_merged_model(
    bank: ExpertBank,
    dense_models: dict[tuple[int, ...], DenseWeights],
    patches: Tensor,
    materialised: bool,
) -> None:
    embeddings = _forward(bank, SETS, patches, materialised=materialised)
    for sample, tasks in enumerate(SETS):
        alone = run(CONFIG, dense_models[tasks], patches[sample : sample + 1].double()).embedding
        torch.testing.assert_close(embeddings[sample].double(), alone[0], atol=5e-5, rtol=5e-5)


@torch.inference_mode()
def test_shared_blocks_run_as_merged_weights_do(large_bank: ExpertBank, patches: Tensor) -> None:
    shared, merged = (_forward(large_bank, SETS, patches, materialised=form) for form in (False, True))
    torch.testing.assert_close(shared, merged, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_an_averaged_patch_embedding_needs_no_blocks(patches: Tensor) -> None:
    averaged = tiny.bank(CONFIG, tiny.pretrained(CONFIG), tasks=4, dense="patch_embedding")
    assert "patch_embedding.weight" not in averaged.ranks
    embeddings = _forward(averaged, SETS, patches, materialised=False)
    dense = {name: _merged_in_float64(averaged, name, SETS[4]) for name in averaged.pretrained}
    alone = run(CONFIG, DenseWeights(dense), patches[4:5].double()).embedding
    torch.testing.assert_close(embeddings[4].double(), alone[0], atol=5e-5, rtol=5e-5)


@torch.inference_mode()
def test_identical_tasks_merge_to_one_of_them_twice_over() -> None:
    """polar([u, u]) is [u, u] / sqrt(2) on both sides, so the merged change is the task's own, not a NaN."""
    weights = tiny.pretrained(CONFIG)
    source = tiny.bank(CONFIG, weights, tasks=2)
    twins = ExpertBank(CONFIG, weights, source.task_ranks)
    for task in (0, 1):
        twins.take_tasks(source, {task: 0})
    for parameter in weights:
        torch.testing.assert_close(
            twins.merged(parameter, (0, 1)), twins.merged(parameter, (0,)), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("materialised", [False, True])
@pytest.mark.parametrize("tasks", [(1,), (0, 3), (0, 1, 2)])
def test_the_announced_size_of_a_set_is_its_size(
    bank: ExpertBank, tasks: tuple[int, ...], materialised: bool
) -> None:
    expert_set: ExpertSet = bank.expert_set(tasks, materialised=materialised)
    assert expert_set.nbytes == bank.expert_set_nbytes(tasks, materialised=materialised)


@pytest.mark.parametrize("tasks", [(1,), (0, 3), (0, 1, 2)])
def test_the_announced_size_of_a_set_of_shared_blocks_is_its_size(
    large_bank: ExpertBank, tasks: tuple[int, ...]
) -> None:
    expert_set: ExpertSet = large_bank.expert_set(tasks, materialised=False)
    assert expert_set.nbytes == large_bank.expert_set_nbytes(tasks, materialised=False)


@pytest.mark.parametrize("small_weight", [0, SMALL_WEIGHT])
@pytest.mark.parametrize("noise", [1e-1, 1e-3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 5e-2)])
@torch.inference_mode()
def test_nearly_equal_tasks_run_low_rank_as_they_run_merged(
    noise: float, dtype: torch.dtype, tolerance: float, small_weight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large numbers cancel in the cores of such tasks; relative to what the experts change at all."""
    monkeypatch.setattr("mass_serve.kernels.low_rank.deltas.SMALL_WEIGHT", small_weight)
    torch.manual_seed(0)
    pretrained = tiny.pretrained(CONFIG, dtype)
    bank = tiny.nearly_equal_tasks(CONFIG, pretrained, noise)
    patches = patchify(
        torch.randn(8, 3, CONFIG.patches.image_size, CONFIG.patches.image_size),
        CONFIG.patches.patch_size,
    ).to(dtype)
    sets: list[tuple[int, ...]] = [(0, 1)] * len(patches)
    low_rank, merged = (_forward(bank, sets, patches, materialised=m).double() for m in (False, True))
    plain = run(CONFIG, DenseWeights(pretrained), patches).embedding.double()
    assert (low_rank - merged).norm() < tolerance * (merged - plain).norm()


def test_sets_computed_together_have_the_bits_of_sets_computed_alone(bank: ExpertBank) -> None:
    sets = [(2,), (0, 3), (0, 1, 2), (1, 2)]
    for tasks, together in zip(sets, bank.expert_sets(sets, materialised=False), strict=True):
        alone = bank.expert_set(tasks, materialised=False)
        assert together.tasks == tasks
        assert together.deltas.keys() == alone.deltas.keys()
        for name, delta in alone.deltas.items():
            assert type(together.deltas[name]) is type(delta)
            for field, part in vars(delta).items():
                other = getattr(together.deltas[name], field)
                assert torch.equal(other, part) if isinstance(part, Tensor) else other == part
        assert all(torch.equal(together.vectors[name], vector) for name, vector in alone.vectors.items())


@pytest.mark.parametrize("tasks", [(1,), (1, 2)])
def test_a_set_renumbered_is_the_same_set_of_another_bank(bank: ExpertBank, tasks: tuple[int, ...]) -> None:
    """Its tasks have other numbers there."""
    weights = tiny.pretrained(CONFIG)
    other = ExpertBank(CONFIG, weights, bank.task_ranks[1:])
    other.take_tasks(bank, {0: 1, 1: 2, 2: 3})
    moved = tuple(task - 1 for task in tasks)
    renumbered = bank.expert_set(tasks, materialised=False).renumbered(moved)
    computed = other.expert_set(moved, materialised=False)
    patches = patchify(torch.randn(2, 3, 32, 32), CONFIG.patches.patch_size)
    found, wanted = (
        run(CONFIG, SegmentedWeights(other, [own], (0, 2)), patches).embedding
        for own in (renumbered, computed)
    )
    assert renumbered.tasks == computed.tasks
    assert torch.equal(found, wanted)


def test_a_task_of_other_ranks_is_not_taken(bank: ExpertBank) -> None:
    ranks = [{name: rank + (name == "projection.weight") for name, rank in bank.task_ranks[0].items()}]
    other = ExpertBank(CONFIG, tiny.pretrained(CONFIG), ranks)
    with pytest.raises(ValueError, match=r"projection\.weight: blocks"):
        other.take_tasks(bank, {0: 0})


def test_a_set_of_one_task_takes_a_small_part_of_a_large_encoder(large_bank: ExpertBank) -> None:
    encoder = sum(tensor.nbytes for tensor in large_bank.pretrained.values())
    assert large_bank.expert_set((0,), materialised=False).nbytes < 0.06 * encoder


def test_packed_blocks_stay_packed() -> None:
    bank = tiny.packed_bank(CONFIG, tiny.pretrained(CONFIG), tasks=3)
    name = next(name for name, ranks in bank.ranks.items() if ranks[0])
    block = bank.tasks.get(0).blocks[name]
    d_out, d_in = bank.pretrained[name].shape
    assert block.nbytes == block.rank * ((d_out + 1) // 2 + (d_in + 1) // 2)
    assert bank.has_packed_blocks
    # What is asked of them is in numbers of length 1 a row, the same as is merged.
    (vectors,) = bank.singular_vectors(name, [0])
    torch.testing.assert_close(vectors.vh.norm(dim=1), torch.ones(block.rank))
    ((right, s),) = bank.right_singular_vectors(name, [0])
    assert torch.equal(right, vectors.vh)
    merged = bank.pretrained[name] + (vectors.u * s) @ right
    torch.testing.assert_close(bank.merged(name, (0,)), merged, atol=1e-6, rtol=1e-5)


def test_a_bank_that_takes_packed_tasks_has_packed_blocks() -> None:
    bank = tiny.packed_bank(CONFIG, tiny.pretrained(CONFIG), tasks=3)
    for task, packed in ((0, True), (1, False), (2, True)):
        other = ExpertBank(CONFIG, bank.pretrained, [bank.task_ranks[task]])
        other.take_tasks(bank, {0: task})
        assert other.has_packed_blocks == packed


def test_a_task_that_does_not_fit_is_refused() -> None:
    weights = tiny.pretrained(CONFIG)
    empty = ExpertBank(CONFIG, weights, [{"projection.weight": 1}])
    with pytest.raises(ValueError, match="no delta for"):
        empty.set_task(0, {}, {})
    deltas = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    with pytest.raises(ValueError, match=r"no blocks for projection\.weight"):
        empty.set_task(0, {}, deltas)
    for rank, width in ((1, 5), (2, 48)):
        wrong = TaskSingularVectors(torch.zeros(width, rank), torch.zeros(rank), torch.zeros(rank, 64))
        with pytest.raises(ValueError, match=r"projection\.weight: blocks"):
            empty.set_task(0, {"projection.weight": wrong}, deltas)
    deltas["class_embedding"] = torch.zeros(3)
    with pytest.raises(ValueError, match="class_embedding"):
        empty.set_task(0, {}, deltas)


def test_a_rank_takes_its_own_memory_and_none_takes_none() -> None:
    bank = tiny.ragged_bank(CONFIG, tiny.pretrained(CONFIG), tasks=4)
    shapes = CONFIG.matrix_shapes()
    blocks = sum(
        4 * rank * (sum(shapes[name]) + 1) for ranks in bank.task_ranks for name, rank in ranks.items()
    )
    dense = sum(4 * tensor.nbytes for name, tensor in bank.pretrained.items() if name not in shapes)
    assert bank.nbytes == blocks + dense
    empty = [name for name in shapes if not any(ranks[name] for ranks in bank.task_ranks)]
    assert len(empty) > 2
    for materialised in (False, True):
        deltas = bank.expert_set((0, 1, 3), materialised=materialised).deltas
        of_linears = [deltas[name.removesuffix(".weight")] for name in empty if "position" not in name]
        assert [type(delta) for delta in of_linears] == [BaseOnly] * len(of_linears)


def test_a_small_linear_has_sides_of_the_sets_own(bank: ExpertBank) -> None:
    for tasks in ((0,), (0, 1, 3)):
        for linear, delta in bank.expert_set(tasks, materialised=False).deltas.items():
            ranks = [bank.task_ranks[task][f"{linear}.weight"] for task in tasks]
            assert isinstance(delta, SmallSides if any(ranks) else BaseOnly)
            assert sum(ranks) == 0 or delta.rank - sum(ranks) in range(16)  # type: ignore[union-attr]


def test_a_set_has_a_change_of_those_of_its_tasks_that_made_one(large_bank: ExpertBank) -> None:
    bank = large_bank
    deltas = bank.expert_set((0, 1, 3), materialised=False).deltas
    for linear, delta in deltas.items():
        changing = tuple(task for task in (0, 1, 3) if bank.task_ranks[task][f"{linear}.weight"])
        match delta:
            case BaseOnly():
                assert changing == ()
            case OneTask(block=block):
                assert [block] == [bank.tasks.get(task).blocks[f"{linear}.weight"] for task in changing]
            case SeveralTasks(blocks=blocks):
                assert list(blocks) == [bank.tasks.get(task).blocks[f"{linear}.weight"] for task in changing]
            case _:
                raise AssertionError(linear)


def test_ranks_that_no_matrix_has_are_refused() -> None:
    weights = tiny.pretrained(CONFIG)
    for rank in (-1, 49):
        with pytest.raises(
            ValueError, match=rf"projection\.weight: task 1 has rank {rank}, must be in 0\.\.48"
        ):
            ExpertBank(CONFIG, weights, [{"projection.weight": 1}, {"projection.weight": rank}])
    with pytest.raises(ValueError, match=r"projection\.weight: task 1 and task 0 must both have blocks"):
        ExpertBank(CONFIG, weights, [{"projection.weight": 1}, {}])
