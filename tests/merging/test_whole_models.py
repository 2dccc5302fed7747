"""Methods that merge whole models, against their papers' formulas and against FusionBench."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mass_serve.merging.methods import DOGE, ISO_C, ISO_CTS, OPCM, TIES, WUDI, merged_direction
from mass_serve.merging.methods.ties import ties, ties_threshold
from tests.merging.fusion_bench import fusion_bench

TASKS, SHAPES = 3, {"encoder.a.weight": (36, 24), "encoder.b.weight": (24, 40), "encoder.b.bias": (24,)}
MATRICES = [name for name, shape in SHAPES.items() if len(shape) == 2]


@dataclass(frozen=True)
class Vectors:
    """Task vectors in memory."""

    changes: list[dict[str, Tensor]]
    names: tuple[str, ...] = tuple(SHAPES)

    @property
    def tasks(self) -> int:
        return len(self.changes)

    def change(self, task: int, name: str) -> Tensor:
        return self.changes[task][name]


@pytest.fixture
def vectors() -> Vectors:
    """Of the sizes that fine-tuning has, a different one for each task."""
    generator = torch.Generator().manual_seed(4)
    return Vectors(
        [
            {
                name: 1e-3 * (1 + task) * torch.randn(shape, generator=generator)
                for name, shape in SHAPES.items()
            }
            for task in range(TASKS)
        ]
    )


def _stacked(vectors: Vectors, name: str) -> Tensor:
    return torch.stack([own[name] for own in vectors.changes]).double()


def test_all_directions_of_iso_c_are_equally_strong(vectors: Vectors) -> None:
    merged = merged_direction(ISO_C, vectors)
    for name in MATRICES:
        total = _stacked(vectors, name).sum(0)
        u, s, vh = torch.linalg.svd(total, full_matrices=False)
        torch.testing.assert_close(merged[name].double(), s.mean() * u @ vh, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(merged["encoder.b.bias"].double(), _stacked(vectors, "encoder.b.bias").mean(0))


@pytest.mark.parametrize("method", [ISO_C, ISO_CTS], ids=lambda method: method.name)
def test_directions_that_no_task_changed_stay_as_they_are(method: Any) -> None:
    """An adapter's change has few; what a decomposition makes up beside them would be as strong as they."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(30, 2, generator=generator), torch.randn(2, 20, generator=generator)
    merged = method.merge(torch.stack([left @ right, 2 * left @ right]))
    beside = torch.eye(20) - right.T @ torch.linalg.pinv(right).T
    assert torch.linalg.matrix_norm(merged @ beside) < 1e-4 * torch.linalg.matrix_norm(merged)
    assert torch.count_nonzero(method.merge(torch.zeros(2, 30, 20))) == 0


def test_opcm_has_the_mean_norm_of_its_tasks(vectors: Vectors) -> None:
    merged = merged_direction(OPCM, vectors)
    norms = [torch.cat([one.flatten() for one in own.values()]).norm() for own in vectors.changes]
    found = torch.cat([one.flatten() for one in merged.values()]).norm()
    torch.testing.assert_close(found, torch.stack(norms).mean(), rtol=1e-4, atol=0)


def test_the_gradient_of_wudi_is_that_of_its_loss(vectors: Vectors) -> None:
    """After all steps the interference is less than that of the sum, and no single step can do better."""
    name = MATRICES[0]
    changes = _stacked(vectors, name)

    def interference(merged: Tensor) -> Tensor:
        products = (merged - changes) @ changes.transpose(1, 2)
        return (products.square().sum((1, 2)) / changes.square().sum((1, 2))).sum()

    total = changes.sum(0)
    theirs = total.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=1e-5)
    for _ in range(300):
        optimiser.zero_grad()
        (theirs.grad,) = torch.autograd.grad(interference(theirs), theirs)
        optimiser.step()
    merged = WUDI.merge(changes.float())
    assert interference(merged.double()) < interference(total)
    torch.testing.assert_close(merged.double(), theirs.detach(), atol=2e-6, rtol=1e-3)


def test_ties_of_whole_models_is_ties_of_their_flattened_vectors(vectors: Vectors) -> None:
    flat = torch.stack([torch.cat([one.flatten() for one in own.values()]) for own in vectors.changes])
    wanted = ties(flat, torch.tensor([ties_threshold(row) for row in flat]))
    merged = merged_direction(TIES, vectors)
    assert torch.equal(torch.cat([merged[name].flatten() for name in SHAPES]), wanted)


class _Model(nn.Module):
    """Weights under names, as FusionBench takes a model."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.a = nn.Linear(24, 36, bias=False)
        self.encoder.b = nn.Linear(40, 24)
        self.load_state_dict(weights)


def _models(vectors: Vectors) -> dict[str, _Model]:
    zeros = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    own = {str(task): _Model(change) for task, change in enumerate(vectors.changes)}
    return {"_pretrained_": _Model(zeros)} | own


def _pool(vectors: Vectors, kind: type) -> Any:
    """A pool of models of FusionBench: over weights of zeros, the models are their task vectors."""
    pool, models = kind(), _models(vectors)
    pool.model_names = [str(task) for task in range(TASKS)]
    pool.load_model = models.__getitem__
    pool.load_pretrained_model = lambda: models["_pretrained_"]
    return pool


@pytest.mark.optional("fusion_bench")
def test_isotropic_merging_is_fusion_benchs(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = fusion_bench("isotropic_merging/iso_utils.py", monkeypatch)
    for method, merged in (
        (ISO_C, theirs.iso_c(vectors.changes, accelerator="cpu")),
        (ISO_CTS, theirs.iso_cts(vectors.changes, 0.8, accelerator="cpu")),
    ):
        ours = merged_direction(method, vectors)
        for name in SHAPES:
            torch.testing.assert_close(ours[name], merged[name], atol=1e-7, rtol=1e-3)


@pytest.mark.optional("fusion_bench")
def test_wudi_is_fusion_benchs(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = fusion_bench("wudi/wudi.py", monkeypatch)
    merged = theirs.wudi_merging(vectors.changes, accelerator="cpu", iter_num=300)
    ours = merged_direction(WUDI, vectors)
    for name in SHAPES:
        torch.testing.assert_close(ours[name], merged[name].detach(), atol=2e-6, rtol=1e-3)


@pytest.mark.optional("fusion_bench")
def test_opcm_is_fusion_benchs(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = fusion_bench("opcm/opcm.py", monkeypatch)
    monkeypatch.setattr(theirs, "is_leaf_module", lambda module: not list(module.children()))
    monkeypatch.setattr(
        theirs,
        "get_task_vector_norm",
        lambda model, _: torch.cat([one.flatten() for one in model.state_dict().values()]).norm(),
    )
    monkeypatch.setattr(
        theirs, "svd", lambda w: (lambda u, s, vh: (u, s, vh.T))(*torch.linalg.svd(w, full_matrices=True))
    )
    algorithm: Any = object.__new__(theirs.OPCMForCLIP)
    vars(algorithm).update(
        {
            **{"alpha": 0.5, "shuffle_order": False, "seed": None, "log_dir": None},
            **{"save_on_every_step": False, "evaluate_on_every_step": False},
            "fabric": SimpleNamespace(device="cpu", log=lambda *_, **__: None),
            "_program": SimpleNamespace(taskpool=SimpleNamespace(_test_datasets={})),
            "profile": lambda _: nullcontext(),
            "print_profile_summary": lambda: None,
        }
    )
    merged = algorithm.run(_pool(vectors, SimpleNamespace)).state_dict()
    ours = merged_direction(OPCM, vectors)
    for name in SHAPES:
        torch.testing.assert_close(ours[name], merged[name], atol=1e-7, rtol=1e-3)


@pytest.mark.optional("fusion_bench")
def test_doge_is_fusion_benchs(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of matrices: its file takes biases of an encoder for none of its own, either."""
    theirs = fusion_bench("doge_ta/doge_ta.py", monkeypatch)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
    algorithm: Any = object.__new__(theirs.DOGE_TA_Algorithm)
    vars(algorithm).update(
        {
            "delta": None,
            "config": SimpleNamespace(subspace=6, K=30, lamda=0.07),
            "fabric": SimpleNamespace(device="cpu", backward=lambda loss: loss.backward()),
            "profile": lambda _: nullcontext(),
            "print_profile_summary": lambda: None,
        }
    )
    merged = algorithm.run(_pool(vectors, theirs.BaseModelPool)).state_dict()
    ours = merged_direction(DOGE, vectors)
    for name in SHAPES:
        torch.testing.assert_close(ours[name], merged[name], atol=2e-6, rtol=1e-3)
    assert torch.count_nonzero(ours["encoder.b.bias"]) == 0
