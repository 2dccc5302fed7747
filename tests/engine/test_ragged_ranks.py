"""Tasks whose ranks differ, matrix by matrix, through the whole engine: against merged models in float64."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import DenseWeights, Feature, Probe, patchify, run, weight_of
from mass_serve.engine import Classification, Engine, Query
from mass_serve.engine.execution import AdaptiveExecution, Execution
from mass_serve.engine.loaded_store import LoadedStore, early_linears
from mass_serve.engine.set_cache import SetCache, SetKey
from mass_serve.kernels.backend import Backend, backend
from mass_serve.merging.methods.tsv_m import GRAM_CUTOFF
from mass_serve.router import MODE_NAMES, MODES, PAPER, ModeName, early_stop
from tests import tiny

TASKS = 4
PIXELS = tiny.pixels(12)
FORMS = (Execution.LOW_RANK, Execution.MATERIALISED)


def _loaded(mode: ModeName = PAPER, least_rank: int = 0, calibrated: bool = False) -> LoadedStore:
    return tiny.loaded_store(TASKS, mode=mode, threshold=0.12, calibrated=calibrated, least_rank=least_rank)


def _engine(loaded: LoadedStore, execution: Execution = Execution.LOW_RANK) -> Engine:
    return Engine(loaded, execution, 1 << 30)


def _polar(matrix: Tensor) -> Tensor:
    if 0 in matrix.shape:
        return matrix
    p, s, qh = torch.linalg.svd(matrix, full_matrices=False)
    kept = s**2 > GRAM_CUTOFF * s[0] ** 2
    factor: Tensor = p[:, kept] @ qh[kept]
    return factor


def _merged(loaded: LoadedStore, tasks: tuple[int, ...]) -> DenseWeights:
    """TSV-M of the tasks by its definition, in float64."""
    bank, merged = loaded.bank, {}
    for name, before in loaded.pretrained.items():
        if name not in bank.ranks:
            deltas = torch.stack([bank.dense_delta(name, task) for task in tasks])
            merged[name] = before.double() + deltas.double().mean(0)
            continue
        own = bank.singular_vectors(name, tasks)
        u = torch.cat([vectors.u for vectors in own], dim=1).double()
        vh = torch.cat([vectors.vh for vectors in own]).double()
        s = torch.cat([vectors.s for vectors in own]).double()
        merged[name] = before.double() + (_polar(u) * s) @ _polar(vh)
    return DenseWeights(merged)


def _patches(loaded: LoadedStore, sample: int) -> Tensor:
    preprocessing = tiny.preprocessing(loaded.architecture.patches.image_size)
    pixels = preprocessing.normalise(PIXELS[sample][None])
    return patchify(pixels, loaded.architecture.patches.patch_size).double()


def _dense_logits(loaded: LoadedStore, answer: Classification, sample: int) -> Tensor:
    """What the answering head says of the merged model of the answer's second pass, in float64."""
    names = [head.entry.name for head in loaded.heads]
    in_set = tuple(map(names.index, answer.expert_set))
    tasks = in_set if loaded.mode == PAPER else (names.index(answer.task),)
    x, start = _patches(loaded, sample), None
    if loaded.mode != PAPER and MODES[loaded.mode].resumes:
        start = early_stop(loaded.architecture.depth)
        first = DenseWeights({name: tensor.double() for name, tensor in loaded.first_pass.items()})
        x = run(loaded.architecture, first, x, stop=start).tokens
    embedding = run(loaded.architecture, _merged(loaded, tasks), x, start).embedding
    return loaded.heads[names.index(answer.task)].head.logits(embedding.float())[0]


@pytest.mark.parametrize("execution", [*FORMS, Execution.ADAPTIVE])
@pytest.mark.parametrize("least_rank", [0, 1])
@pytest.mark.parametrize("mode", MODE_NAMES)
@torch.inference_mode()
def test_every_mode_answers_as_the_merged_model_does(
    mode: ModeName, least_rank: int, execution: Execution
) -> None:
    """With 0, no subspaces can be compared in some matrices."""
    loaded = _loaded(mode, least_rank)
    answers = _engine(loaded, execution).classify_batch([Query(p) for p in PIXELS]).all_answers()
    for sample, answer in enumerate(answers):
        torch.testing.assert_close(answer.logits, _dense_logits(loaded, answer, sample), atol=2e-3, rtol=1e-4)
        assert all(0 <= value <= 1 for value in answer.coefficients.values())


@pytest.mark.parametrize("execution", FORMS)
@torch.inference_mode()
def test_sets_of_one_two_and_three_tasks_are_their_merged_models(execution: Execution) -> None:
    loaded = _loaded()
    cache = SetCache(loaded.bank, 1 << 30)
    passes = _engine(loaded)._passes
    for size in (1, 2, 3):
        sets = list(combinations(range(TASKS), size))
        weights = cache.get([SetKey(tasks, execution is Execution.MATERIALISED) for tasks in sets])
        patches = torch.cat([_patches(loaded, sample) for sample in range(len(sets))])
        found = passes.second(patches.float(), weights, range(len(sets) + 1))
        for row, tasks in enumerate(sets):
            wanted = run(loaded.architecture, _merged(loaded, tasks), patches[row : row + 1]).embedding[0]
            torch.testing.assert_close(found[row].double(), wanted, atol=5e-5, rtol=5e-5)
        assert cache.nbytes == sum(own.nbytes for own in cache.ready().values())


@pytest.mark.parametrize("execution", FORMS)
@pytest.mark.parametrize("mode", MODE_NAMES)
def test_an_image_has_the_same_bits_alone_and_in_any_batch(mode: ModeName, execution: Execution) -> None:
    engine = _engine(_loaded(mode, least_rank=1), execution)
    queries = [Query(pixels) for pixels in PIXELS]
    together = engine.classify_batch(queries).all_answers()
    for query, answer in zip(queries, together, strict=True):
        (alone,) = engine.classify_batch([query]).all_answers()
        assert alone.expert_set == answer.expert_set
        assert alone.coefficients == answer.coefficients
        assert torch.equal(alone.logits, answer.logits)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("mode", MODE_NAMES)
def test_tasks_that_left_all_alone_are_served(mode: ModeName, calibrated: bool) -> None:
    """As one that only has a head of its own; then nothing but the heads tells the tasks apart."""
    weights = tiny.pretrained(tiny.CONFIG)
    loaded = _loaded(mode, calibrated=calibrated)
    untouched = {name: tiny.of_rank(tensor, 0) for name, tensor in weights.items() if tensor.ndim == 2}
    deltas = {name: torch.zeros_like(tensor) for name, tensor in weights.items() if tensor.ndim != 2}
    bank = tiny.bank_of(tiny.CONFIG, weights, [(untouched, deltas)] * TASKS)
    assert bank.nbytes == 0
    engine = _engine(replace(loaded, bank=bank, pretrained=weights, first_pass=weights))
    with torch.inference_mode():
        answers = engine.classify_batch([Query(p) for p in PIXELS]).all_answers()
        plain = run(
            loaded.architecture,
            DenseWeights(weights),
            torch.cat([_patches(loaded, i) for i in range(12)]).float(),
        ).embedding
    for answer, embedding in zip(answers, plain, strict=True):
        wanted = engine.head(answer.task).logits(embedding[None])[0]
        torch.testing.assert_close(answer.logits, wanted, atol=1e-4, rtol=1e-4)
        assert all(value == value for value in answer.coefficients.values()), "no NaN"


def test_as_many_leading_directions_are_compared_as_every_task_has() -> None:
    loaded = _loaded("exact", least_rank=2)
    answers = _engine(loaded).classify_batch([Query(p) for p in PIXELS]).all_answers()
    linear = loaded.architecture.residual_linear(loaded.router.layer)
    vectors = loaded.bank.singular_vectors(weight_of(linear), range(TASKS))
    least = min(own.rank for own in vectors)
    assert least < max(own.rank for own in vectors)
    x = torch.cat([_patches(loaded, sample) for sample in range(len(PIXELS))]).float()
    probe = Probe(feature=Feature(loaded.router.layer, loaded.router.token))
    z = run(loaded.architecture, DenseWeights(loaded.first_pass), x, probe=probe).feature.double()
    for task, own in enumerate(vectors):
        leading = own.vh[:least].double()
        expected = (z - z @ leading.T @ leading).norm(dim=1).float()
        found = torch.tensor([answer.residuals[f"task{task}"] for answer in answers])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_an_adapter_is_what_the_store_says_is_one_and_what_blocks_hold_whole() -> None:
    loaded = _loaded("exact", least_rank=1)
    assert not any(loaded.adapters)
    (first, *others) = loaded.heads
    merged = replace(first, entry=first.entry.model_copy(update={"energy_kept": 1.0}))
    cut = replace(first, entry=first.entry.model_copy(update={"energy_kept": 0.9}))
    cut_adapter = replace(cut, entry=cut.entry.model_copy(update={"adapter": True}))
    for head in (merged, cut_adapter):
        assert replace(loaded, heads=(head, *others)).adapters == (True, *[False] * len(others))
    assert not any(replace(loaded, heads=(cut, *others)).adapters)


def test_every_task_has_the_subspaces_of_its_own_ranks() -> None:
    loaded = _loaded("exact", least_rank=0)
    linears = early_linears(tiny.CONFIG)
    for linear, subspaces in loaded.subspaces(linears).items():
        assert subspaces.ranks == tuple(of_task[f"{linear}.weight"] for of_task in loaded.bank.task_ranks)
        assert subspaces.directions.weights is None, "no profiles where there is no adapter"


@pytest.mark.parametrize(
    ("dtype", "where", "in_parts"),
    [
        (torch.bfloat16, "fused", True),
        (torch.float16, "fused", False),
        (torch.float32, "fused", False),
        (torch.bfloat16, "reference", False),
    ],
)
def test_directions_are_in_parts_where_a_gpu_has_an_encoder_in_bfloat16(
    dtype: torch.dtype, where: Backend, in_parts: bool
) -> None:
    loaded = replace(_loaded("exact", least_rank=0), dtype=dtype)
    linears = early_linears(tiny.CONFIG)
    exact = loaded.subspaces(linears)
    with backend(where):
        found = loaded.subspaces(linears)
    for linear, own in found.items():
        assert own.directions.in_parts is in_parts
        for kept, wanted in zip(own.of_tasks(), exact[linear].of_tasks(), strict=True):
            torch.testing.assert_close(kept, wanted, atol=0, rtol=2**-16)


@pytest.mark.parametrize("mode", MODES)
def test_a_store_with_adapters_answers_in_every_mode_after_the_whole_first_pass(mode: ModeName) -> None:
    loaded = _loaded(mode, least_rank=0)
    (first, *others) = loaded.heads
    adapter = replace(first, entry=first.entry.model_copy(update={"adapter": True}))
    answers = _engine(replace(loaded, heads=(adapter, *others))).classify_batch([Query(p) for p in PIXELS])
    for answer in answers.all_answers():
        assert answer.residuals, "nobody leaves the first pass early"
        assert all(value == value for value in answer.coefficients.values()), "no NaN"


def test_the_price_of_renting_and_buying_follows_each_tasks_ranks() -> None:
    loaded = _loaded()
    execution = AdaptiveExecution(loaded.bank, SetCache(loaded.bank, 1 << 30))
    shapes, ranks = loaded.architecture.parameter_shapes(), loaded.bank.task_ranks
    rent = buy = 0
    for linear in loaded.architecture.linears:
        d_out, d_in = shapes[f"{linear}.weight"]
        own = [ranks[task][f"{linear}.weight"] for task in (1, 3)]
        k, core = sum(own), 2 * sum(own) ** 2 if all(own) else 0
        rent += k * (d_in + d_out) + core
        buy += d_out * k * k + d_out * k * d_in
    assert execution.rent((1, 3)) == rent
    assert execution.merging((1, 3)) == buy
