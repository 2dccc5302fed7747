"""Evidence for tasks beyond the paper's residual, made comparable and summed. No data and no labels.

Three pieces of evidence err on different images (the README has the figures):

- early energy: how much of the first blocks' activations lies in each task's subspaces, over all tokens;
- residual: the paper's, of one feature late in the pass;
- head: the largest cosine between the first pass's embedding and the class vectors of each task's head.

Each is standardised over an image's candidate tasks and all weigh the same. A fourth comes from the second
pass, for tasks that are close: the same cosine once more, now with the task's own weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from router.modes import MOST_LOOKS, Mode
from router.projection import SubspaceRouter, explained_share, orthonormal_rows
from router.selection import STD_EPSILON, spread, standardised

# Softmax temperatures of the sum of one and of all three pieces of evidence. At these the coefficients are
# about as often right as they say on the suites of the README.
EARLY_TEMPERATURE = 1 / 3
WHOLE_TEMPERATURE = 2 / 3


def early_linears(stop: int) -> list[str]:
    """The linears whose inputs early evidence is made of, all of the model's width, in forward order.

    Block 0's qkv is left out: what enters it is hardly more than the patch itself.
    """
    names = [
        f"blocks.{i}.{part}" for i in range(stop) for part in ("attention.qkv", "attention.out", "mlp.fc1")
    ]
    return [*names[1:], f"blocks.{stop}.attention.qkv"]


@dataclass(frozen=True)
class Evidence:
    """What is known of B samples and T tasks, on the CPU; -inf and 0 for tasks that are no candidates."""

    scores: Tensor  # [B, T] float32: sums of standardised evidence
    routing_coefficients: Tensor  # [B, T] float32
    explained: Tensor  # [B, T] float32: the share of the sample's activations in each task's subspaces
    residuals: Tensor | None  # [B, T] float32: the paper's; None in early evidence
    cosine_spread: Tensor | None  # [B] float32: of the head evidence, the unit of what a look adds

    def of(self, rows: Tensor) -> Evidence:
        """That of some samples."""
        residuals = None if self.residuals is None else self.residuals[rows]
        spreads = None if self.cosine_spread is None else self.cosine_spread[rows]
        chosen = (self.scores[rows], self.routing_coefficients[rows], self.explained[rows])
        return Evidence(*chosen, residuals, spreads)

    def leads(self) -> Tensor:
        """How far each sample's best task is ahead of the next, [B]; inf where there is no other."""
        if self.scores.shape[1] == 1:
            return torch.full((len(self.scores),), torch.inf)
        best = self.scores.topk(2, dim=1).values
        return best[:, 0] - best[:, 1]

    def best(self, row: int) -> int:
        """The task with the most evidence."""
        return int(self.scores[row].argmax())

    def to_look_at(self, row: int, mode: Mode) -> tuple[int, ...]:
        """The tasks to try this sample with, ascending."""
        ranked = self.scores[row].sort(descending=True, stable=True)
        near = ranked.values >= ranked.values[0] - mode.look_behind
        chosen = ranked.indices[:MOST_LOOKS][near[:MOST_LOOKS]].tolist()
        return tuple(sorted(chosen)) if mode.look_behind else (self.best(row),)

    def after_looks(self, row: int, cosines: Mapping[int, float]) -> dict[int, float]:
        """The routing coefficients of the tasks that were looked at, once it is known what came of it.

        `cosines` holds the largest cosine that each task's own second pass gave. The tasks share what their
        coefficients were together by that and all evidence before.
        """
        assert self.cosine_spread is not None
        tasks = list(cosines)
        unit = float(self.cosine_spread[row]) + STD_EPSILON
        scores = self.scores[row, tasks] + torch.tensor(list(cosines.values())) / unit
        together = float(self.routing_coefficients[row, tasks].sum())
        shares: list[float] = (scores / WHOLE_TEMPERATURE).softmax(0).tolist()
        return {task: together * share for task, share in zip(tasks, shares, strict=True)}


class EvidenceRouter:
    """Combines evidence. Thread-safe: it keeps nothing of the samples."""

    def __init__(self, mode: Mode, residual: SubspaceRouter, early_blocks: Mapping[str, Tensor]) -> None:
        """`early_blocks` holds vh [T, R, D] of every task by linear, of `early_linears`."""
        self.mode = mode
        self.bases = {linear: orthonormal_rows(blocks) for linear, blocks in early_blocks.items()}
        self._residual = residual

    @property
    def nbytes(self) -> int:
        """The memory of the bases."""
        return sum(basis.nbytes for basis in self.bases.values())

    def early(self, energies: Tensor, candidates: Tensor) -> Evidence:
        """From the early energies [B, T] alone; candidates [B, T] bool on the CPU."""
        energies = energies.cpu()
        scores = standardised(energies, candidates).masked_fill(~candidates, -torch.inf)
        return Evidence(scores, (scores / EARLY_TEMPERATURE).softmax(1), energies, None, None)

    def whole(self, early: Evidence, features: Tensor, cosines: Tensor, candidates: Tensor) -> Evidence:
        """Adds the router's features [B, D] and each head's largest cosines [B, T]."""
        residuals, cosines = self._residual.residuals(features), cosines.cpu()
        scores = early.scores + standardised(-residuals, candidates) + standardised(cosines, candidates)
        return Evidence(
            scores,
            (scores / WHOLE_TEMPERATURE).softmax(1),
            # The geometric mean of both shares, so that it is of the same size as early evidence alone.
            (early.explained * explained_share(features, residuals)).sqrt(),
            residuals,
            spread(cosines, candidates),
        )
