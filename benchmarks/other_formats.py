"""Formats of blocks that were not taken, against `int4` at equal bytes, with the task known.

    python -m benchmarks.other_formats MODELS DATA [--json FILE]

MODELS and DATA are those of `benchmarks.ranks`. What each fine-tuning changed of its matrices is kept in
every format within the bytes that `int4` takes at 1/T, and at 2/T; the rest of a change is kept whole. The
others are measured at the best that they could be: a sparse change is coded in as few bits as its entropy,
and what tasks share takes 4 bits a number and is not rounded. ComPEFT's own scale alone needs labels: each
half of the inputs has the one that is best on the other half.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ranks import SET_CACHE_BYTES, inputs_of
from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.evaluation import EvaluationData, files_of
from mass_serve.evaluation.changes import FinetunedModels
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.index import HALVES, Selection
from mass_serve.evaluation.methods import Dense
from mass_serve.merging import rank_for, task_singular_vectors
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.format.block_formats import BLOCK_FORMS, unpacked

INT4 = BLOCK_FORMS["int4"]
BYTES_OF_4_BITS = 0.5
BUDGETS = (1, 2)  # N of the ratio N/T
# Of the standard deviation of a change: the grid of arXiv:2311.13171.
TERNARY_SCALES = (0.5, 1, 2, 3, 4, 5, 6, 8, 10)
SWEEPS = 10  # over both sides of a shared basis
# Of every matrix [T, d_out, d_in], by its name.
Changes = Mapping[str, Tensor]
Kept = dict[str, Tensor]


@dataclass(frozen=True)
class Budget:
    """What `int4` takes when every task keeps the ratio N/T of each matrix."""

    numerator: int

    def rank(self, deltas: Tensor) -> int:
        """The rank that a task keeps of one matrix."""
        tasks, *shape = deltas.shape
        return rank_for((shape[0], shape[1]), min(1.0, self.numerator / tasks))

    def size(self, deltas: Tensor) -> int:
        """Bytes of one matrix of all tasks."""
        tasks, d_out, d_in = deltas.shape
        return tasks * self.rank(deltas) * INT4.triplet_bytes((d_out, d_in))


def in_int4(changes: Changes, budget: Budget) -> Kept:
    """The format that was taken."""
    return {
        name: torch.stack([_rounded(delta, budget.rank(deltas)) for delta in deltas])
        for name, deltas in changes.items()
    }


def _rounded(delta: Tensor, rank: int) -> Tensor:
    kept = unpacked(INT4.kept(task_singular_vectors(delta, rank)))
    return (kept.u * kept.s) @ kept.vh


def sparse_signs(changes: Changes, budget: Budget) -> Kept:
    """The signs of each task's largest numbers, all others 0 (ComPEFT, arXiv:2311.13171)."""
    numbers = sum(deltas[0].numel() for deltas in changes.values())
    tasks = len(next(iter(changes.values())))
    bits = 8 * sum(budget.size(deltas) for deltas in changes.values()) / (tasks * numbers)
    most = max(1, int(numbers * density_of(bits)))
    signs = {name: torch.zeros_like(deltas) for name, deltas in changes.items()}
    for task in range(tasks):
        sizes = torch.cat([deltas[task].abs().flatten() for deltas in changes.values()])
        least = sizes.kthvalue(numbers - most + 1).values
        for name, deltas in changes.items():
            signs[name][task] = deltas[task].sign() * (deltas[task].abs() >= least)
    return signs


def density_of(bits: float) -> float:
    """The share k of numbers that are not 0 in so many bits a number: `H(k) + k`, the entropy of signs."""

    def entropy(k: float) -> float:
        return k - k * math.log2(k) - (1 - k) * math.log2(1 - k)

    low, high = 1e-9, 2 / 3  # where it is largest: signs and zeros are as frequent
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy(middle) < bits else (low, middle)
    return low


def nearest_ternary(changes: Changes, budget: Budget) -> Kept:
    """Sparse signs, with the scale of each matrix of a task that is nearest to its change."""
    kept = sparse_signs(changes, budget)
    for name, signs in kept.items():
        products = (signs * changes[name]).sum((1, 2), keepdim=True)
        kept[name] = signs * (products / signs.abs().sum((1, 2), keepdim=True).clamp_min(1))
    return kept


def shared_sides(changes: Changes, budget: Budget) -> Kept:
    """One basis of all tasks on each side of a matrix, and what each task does between them.

    `delta_t ~ U C_t V` with the nearest U [d_out, P], V [P, d_in] and C_t [P, P], tasks alike in weight.
    """
    kept = {}
    for name, deltas in changes.items():
        tasks, d_out, d_in = deltas.shape
        numbers = budget.size(deltas) / BYTES_OF_4_BITS
        # tasks P^2 + (d_out + d_in) P = numbers
        sides = d_out + d_in
        size = int((math.sqrt(sides**2 + 4 * tasks * numbers) - sides) / (2 * tasks))
        kept[name] = _between_bases(deltas, min(size, d_out, d_in))
    return kept


def _between_bases(deltas: Tensor, size: int) -> Tensor:
    unit = deltas / torch.linalg.matrix_norm(deltas, keepdim=True).clamp_min(1e-30)
    right = _leading(torch.einsum("toi,toj->ij", unit, unit), size)
    for _ in range(SWEEPS):
        seen = unit @ right
        left = _leading(torch.einsum("tor,tpr->op", seen, seen), size)
        seen = left.T @ unit
        right = _leading(torch.einsum("tri,trj->ij", seen, seen), size)
    between: Tensor = left @ (left.T @ deltas @ right) @ right.T
    return between


def _leading(gram: Tensor, size: int) -> Tensor:
    leading: Tensor = torch.linalg.eigh(gram.double()).eigenvectors[:, -size:]
    return leading.float()


def shared_rows(changes: Changes, budget: Budget) -> Kept:
    """A basis of all tasks for each row of their factors (RMM, arXiv:2510.14163).

    With `delta_t ~ A_t B_t` of rank R, the rows number i of all A_t, and the columns of all B_t, are
    combined of the p vectors that are nearest to them. Of all p the one is taken whose changes are nearest.
    """
    return {name: _nearest_of_rows(deltas, budget) for name, deltas in changes.items()}


def _nearest_of_rows(deltas: Tensor, budget: Budget) -> Tensor:
    tasks, d_out, d_in = deltas.shape
    numbers = budget.size(deltas) / (BYTES_OF_4_BITS * (d_out + d_in))  # of a row: p (R + T)
    left, s, right = torch.linalg.svd(deltas, full_matrices=False)
    best = torch.zeros_like(deltas)
    for vectors in range(1, tasks):
        rank = min(int(numbers / vectors) - tasks, s.shape[1])
        if rank <= vectors:
            break
        root = s[:, :rank].sqrt()
        a = _combined(left[:, :, :rank] * root[:, None], vectors)
        b = _combined(right[:, :rank].mT * root[:, None], vectors)
        found = a @ b.mT
        if (found - deltas).norm() < (best - deltas).norm():
            best = found
    return best


def _combined(rows: Tensor, vectors: int) -> Tensor:
    """Rows [T, D, R], those at one of the D places combined of so many vectors."""
    u, s, vh = torch.linalg.svd(rows.transpose(0, 1), full_matrices=False)
    combined: Tensor = (u[..., :vectors] * s[:, None, :vectors]) @ vh[:, :vectors]
    return combined.transpose(0, 1)


FORMATS: Mapping[str, Callable[[Changes, Budget], Kept]] = {
    "int4": in_int4,
    "sparse ternary, the nearest scales": nearest_ternary,
    "shared bases of both sides": shared_sides,
    "shared rows (RMM)": shared_rows,
}
TUNED = "sparse ternary, ComPEFT's scale, tuned on labelled inputs"


class Suite:
    """The fine-tuned models of a suite, and the inputs to measure them on."""

    def __init__(self, engine: Engine, checkpoints: Mapping[str, Path], data: Path) -> None:
        self._engine, self._tasks = engine, tuple(engine.tasks)
        models = FinetunedModels(engine.bank, checkpoints)
        self._whole = {
            name: torch.stack([models.change(task, name) for task in self._tasks])
            for name in engine.bank.pretrained
        }
        self.changes = {name: self._whole[name] for name in engine.bank.ranks}
        self._data = EvaluationData(data, of_whole_inputs(engine.tasks), files_of(engine))

    def right(self, kept: Changes) -> list[list[list[bool]]]:
        """Which inputs are answered rightly with the matrices' changes as kept, by task and half."""
        return [self._right(task, kept) for task in range(len(self._tasks))]

    def _right(self, task: int, kept: Changes) -> list[list[bool]]:
        changes = {**self._whole, **kept}
        parameters = {name: own + changes[name][task] for name, own in self._engine.bank.pretrained.items()}
        engine, name = self._engine, self._tasks[task]
        method = Dense(name, engine.architecture, files_of(engine), engine.head, lambda *_: parameters)
        return [
            [
                answer.labels == target
                for batch in self._data.batches(Selection(name, half))
                for answer, target in zip(method.answer(batch), batch.targets, strict=True)
            ]
            for half in HALVES
        ]

    def error(self, kept: Changes) -> float:
        """How far off the changes are, of their norms, on average over the tasks."""
        whole = torch.stack([deltas.square().sum((1, 2)) for deltas in self.changes.values()]).sum(0)
        off = torch.stack(
            [(kept[name] - own).square().sum((1, 2)) for name, own in self.changes.items()]
        ).sum(0)
        return float((off / whole).sqrt().mean())

    def rows(self) -> Iterator[dict[str, Any]]:
        """What each format keeps within each budget."""
        yield {"format": "whole", "ratio": None, "error": 0.0, "task_known": self._known(self.changes)}
        for budget in map(Budget, BUDGETS):
            size = sum(budget.size(deltas) for deltas in self.changes.values())
            common = {"ratio": f"{budget.numerator}/T", "bytes": size}
            for name, form in FORMATS.items():
                kept = form(self.changes, budget)
                yield {"format": name, **common, "error": self.error(kept), "task_known": self._known(kept)}
            yield {"format": TUNED, **common, "error": None, "task_known": self._tuned_ternary(budget)}

    def _known(self, kept: Changes) -> float:
        return statistics.mean(_chosen_on_the_other([halves]) for halves in self.right(kept))

    def _tuned_ternary(self, budget: Budget) -> float:
        """The average over tasks, each half of its inputs with the scale that is best on the other half."""
        signs = sparse_signs(self.changes, budget)
        tasks = range(len(self._tasks))
        spread = torch.stack(
            [torch.cat([own[task].flatten() for own in self.changes.values()]).std() for task in tasks]
        )
        tried = [
            self.right({name: own * (scale * spread)[:, None, None] for name, own in signs.items()})
            for scale in TERNARY_SCALES
        ]
        return statistics.mean(_chosen_on_the_other([halves[task] for halves in tried]) for task in tasks)


def _chosen_on_the_other(tried: Sequence[list[list[bool]]]) -> float:
    """The accuracy when, of what was tried, what is best on one half answers the other."""
    answers = []
    for half in HALVES:
        best = max(tried, key=lambda halves: sum(halves[1 - half]))
        answers += best[half]
    return statistics.mean(map(int, answers))


def suite_of(models: Path, data: Path) -> Suite:
    """Reads the models and the data."""
    tasks = inputs_of(models, data)
    with tempfile.TemporaryDirectory() as folder:
        store = build(models / "pretrained", tasks, Path(folder) / "store", BuildOptions(format="bfloat16"))
        loaded = load_store(store.files.url, torch.device("cpu"), torch.float32, "exact")
        engine = Engine(loaded, Execution.LOW_RANK, SET_CACHE_BYTES)
    return Suite(engine, {task.name: task.checkpoint for task in tasks}, data)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.other_formats")
    parser.add_argument("models", type=Path, metavar="MODELS")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    rows = []
    for row in suite_of(given.models, given.data).rows():
        rows.append(row)
        print(row, flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
