"""The merges against their papers' formulas, element by element, and against FusionBench."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mass_serve.merging import task_singular_vectors
from mass_serve.merging.methods.consensus import consensus
from mass_serve.merging.methods.tall_masks import tall_mask
from mass_serve.merging.methods.ties import ties, ties_threshold
from mass_serve.merging.methods.tsv_m import merged_delta
from tests.merging.fusion_bench import fusion_bench

PARAMETERS = 1000


@pytest.fixture
def changes() -> Tensor:
    """Three task vectors, of heavy tails and of different sizes."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(3, PARAMETERS, generator=generator) ** 3
    return noise * torch.tensor([0.5, 1.0, 2.0]).view(3, 1)


def _ties(task_vectors: Tensor) -> Tensor:
    return ties(task_vectors, torch.tensor([ties_threshold(vector) for vector in task_vectors]))


def _ties_by_hand(task_vectors: list[list[float]]) -> list[float]:
    """Algorithm 1 of arXiv:2306.01708 with k = 20 %."""
    kept = []
    for vector in task_vectors:
        cut = sorted(map(abs, vector))[int(0.8 * len(vector)) - 1]
        kept.append([value if abs(value) >= cut else 0.0 for value in vector])
    merged = []
    for column in zip(*kept, strict=True):
        sign = 1 if sum(column) > 0 else -1
        agreeing = [value for value in column if value * sign > 0]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return merged


def test_ties(changes: Tensor) -> None:
    assert _ties(changes).tolist() == pytest.approx(_ties_by_hand(changes.tolist()), rel=1e-5)


def test_ties_in_parts_is_ties_of_the_whole(changes: Tensor) -> None:
    thresholds = torch.tensor([ties_threshold(vector) for vector in changes])
    parts = [ties(changes[:, :300].view(3, 30, 10), thresholds).flatten(), ties(changes[:, 300:], thresholds)]
    assert torch.equal(torch.cat(parts), _ties(changes))


def test_tall_masks_and_their_consensus(changes: Tensor) -> None:
    total, lambdas = changes.sum(0), (0.2, 0.4, 0.6)
    wanted = [
        [abs(own) > abs(float(all_) - own) * lambdas[task] for own, all_ in zip(vector, total, strict=True)]
        for task, vector in enumerate(changes.tolist())
    ]
    for task, vector in enumerate(changes):
        assert tall_mask(vector, total, lambdas[task]).tolist() == wanted[task]
    agreed = [float(t) if sum(w) >= 2 else 0.0 for t, w in zip(total, zip(*wanted, strict=True), strict=True)]
    assert consensus(changes, torch.tensor(lambdas)).tolist() == pytest.approx(agreed)
    assert 0 < sum(value != 0 for value in agreed) < PARAMETERS


@pytest.mark.optional("fusion_bench")
def test_ties_is_fusion_benchs(changes: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = fusion_bench("ties_merging/ties_merging_utils.py", monkeypatch)
    merged = theirs.ties_merging(changes, reset_thresh=20, merge_func="mean")
    torch.testing.assert_close(_ties(changes), merged, rtol=1e-6, atol=0)


@pytest.mark.optional("fusion_bench")
def test_masks_and_consensus_are_fusion_benchs(changes: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = fusion_bench("tall_mask/utils.py", monkeypatch)
    flattened = lambda weights, **_: torch.cat([weight.flatten() for weight in weights.values()])  # noqa: E731
    monkeypatch.setattr(theirs, "state_dict_to_vector", flattened)
    pretrained = torch.zeros(PARAMETERS)
    masks = theirs.generate_task_masks(changes, changes, pretrained, tall_mask_lambda=0.4)
    ours = torch.stack([tall_mask(change, changes.sum(0), 0.4) for change in changes])
    assert torch.equal(ours, masks)
    stored = {str(task): {"weight": mask} for task, mask in enumerate(masks)}
    monkeypatch.setattr(theirs, "load_tall_mask", lambda *_: stored)
    agreed = theirs.construct_consensus_mask({"weight": pretrained}, 2, SimpleNamespace())
    assert torch.equal(consensus(changes, torch.full((3,), 0.4)), changes.sum(0) * agreed)


@pytest.mark.optional("fusion_bench")
def test_tsv_m_is_fusion_benchs(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = fusion_bench("task_singular_vector/utils/TSVM_utils.py", monkeypatch)
    generator = torch.Generator().manual_seed(3)
    deltas = [torch.randn(48, 36, generator=generator) for _ in range(3)]
    merged = theirs.compute_and_sum_svd_mem_reduction([{"weight": delta} for delta in deltas])["weight"]
    ours = merged_delta([task_singular_vectors(delta, 36 // 3) for delta in deltas])
    torch.testing.assert_close(ours, merged, rtol=1e-4, atol=1e-4)
