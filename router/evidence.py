"""Evidence for tasks beyond the paper's residual, made comparable and summed. No data and no labels.

Three kinds of evidence err on different images (the README has the figures):

- early energy: how much of the first blocks' activations lies in each task's subspaces, over all tokens;
- residual: the paper's, of one feature late in the pass;
- head: the largest cosine between the first pass's embedding and the class vectors of each task's head.

A share of energy and a cosine count by the logarithm of what they leave to 1: the nearer they are to it, the
more a further step says. Each kind is standardised over an image's candidate tasks and all weigh the same.
For tasks that are close the second pass has more to say: the same cosine once more, now with the task's own
weights, and how clearly one class stands out from the others, measured in two ways. Where a store was
calibrated on unlabelled images, what a discriminant makes of the same evidence counts too (see
`router.calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from mass_serve.router.calibration import Calibration, Discriminant, Judgement
from mass_serve.router.modes import MOST_LOOKS, Mode, early_stop
from mass_serve.router.projection import SubspaceRouter, explained_share, orthonormal_rows
from mass_serve.router.selection import STD_EPSILON, spread, standardised

# Softmax temperatures of the sum of one and of all three kinds of evidence. At these the coefficients are
# about as often right as they say on the suites of the README.
EARLY_TEMPERATURE = 1 / 3
WHOLE_TEMPERATURE = 2 / 3
# What each sign of a second look counts beside the kinds of evidence before it.
LOOK_WEIGHT = 0.5
# Less than this is not left to 1: nothing is so certain.
LEAST_REST = 1e-3
# Below this, tasks do not differ in sharpness: heads of two classes are all equally sharp, but for rounding.
LEAST_SHARPNESS_SPREAD = 0.1
# Class vectors as near to each other as this have no room between them that a peak could be measured in.
LEAST_ROOM = 0.05
LATE_KINDS = 2  # after the early energies: the share of the router's feature explained, the largest cosine


def evidence_kinds(depth: int) -> int:
    """How many kinds of evidence there are for an encoder of `depth` blocks."""
    return len(early_linears(early_stop(depth))) + LATE_KINDS


def early_linears(stop: int) -> list[str]:
    """The linears whose inputs early evidence is made of, all of the model's width, in forward order.

    Block 0's qkv is left out: what enters it is hardly more than the patch itself.
    """
    names = [
        f"blocks.{i}.{part}" for i in range(stop) for part in ("attention.qkv", "attention.out", "mlp.fc1")
    ]
    return [*names[1:], f"blocks.{stop}.attention.qkv"]


@dataclass(frozen=True)
class HeadShape:
    """What of a head its signs are measured by. Made of its class vectors alone."""

    room: float  # how far an embedding at a class vector is above the head's mean cosine, on average
    chance: float  # how far the largest of C normal numbers is expected above their mean, in deviations
    dimensions: int  # P

    @classmethod
    def of(cls, directions: Tensor) -> HeadShape:
        """Of class vectors [C, P] of unit length. The chance is Blom's approximation."""
        classes, dimensions = directions.shape
        room = 1 - float(directions.double().mean(0).square().sum())
        chance = NormalDist().inv_cdf((classes - 0.375) / (classes + 0.25))
        return cls(max(room, LEAST_ROOM), chance, dimensions)

    def signs(self, cosines: Tensor) -> Tensor:
        """The largest cosine of each row, its sharpness and its peak, [n, 3]; cosines [n, C].

        Sharpness: by how many standard deviations the largest is above the mean of all. Peak: how far it is
        above that mean, of what the class vectors leave room for. Both less what the largest of C
        independent numbers comes to by chance, so that heads of few and of many classes can be compared.
        """
        largest = cosines.amax(1)
        above = largest - cosines.mean(1)
        sharpness = above / (cosines.std(1, correction=0) + STD_EPSILON) - self.chance
        # Of an embedding at random, cosines deviate from their mean by the root of room over dimensions.
        peak = above / self.room - self.chance / math.sqrt(self.room * self.dimensions)
        return torch.stack([largest, sharpness, peak], dim=1)


def nearness(share: Tensor) -> Tensor:
    """-log(1 - share) of each element, for shares and cosines of up to 1."""
    return -(1 - share).clamp_min(LEAST_REST).log()


@dataclass(frozen=True)
class Evidence:
    """What is known of B samples and T tasks, on the CPU; -inf and 0 for tasks that are no candidates."""

    scores: Tensor  # [B, T] float32: sums of standardised evidence, calibrated
    routing_coefficients: Tensor  # [B, T] float32
    explained: Tensor  # [B, T] float32: the share of the sample's activations in each task's subspaces
    typicality: Tensor  # [B, T] float32, 0 to 1: of the evidence, see `router.calibration`; 1 without one
    kinds: Tensor  # [B, K, T] float32: the evidence itself, before anything was standardised
    # [B] float32: how far the best task is ahead of the next before calibration, which sharpens what it
    # does not always make surer; inf where there is no other.
    leads: Tensor
    residuals: Tensor | None = None  # [B, T] float32: the paper's; None in early evidence
    # [B, 3] float32: of the cosines' nearness, sharpness and peak, the units of what a look adds
    sign_spreads: Tensor | None = None

    def of(self, rows: Tensor) -> Evidence:
        """That of some samples."""
        return Evidence(
            self.scores[rows],
            self.routing_coefficients[rows],
            self.explained[rows],
            self.typicality[rows],
            self.kinds[rows],
            self.leads[rows],
            None if self.residuals is None else self.residuals[rows],
            None if self.sign_spreads is None else self.sign_spreads[rows],
        )

    def likeness(self, row: int, tasks: Iterable[int]) -> dict[int, float]:
        """How much the sample is like the images of each task, 0 to 1: explained, and in a typical way."""
        return {task: float(self.explained[row, task] * self.typicality[row, task]) for task in tasks}

    def best(self, row: int) -> int:
        """The task with the most evidence."""
        return int(self.scores[row].argmax())

    def to_look_at(self, row: int, mode: Mode) -> tuple[int, ...]:
        """The tasks to try this sample with, ascending."""
        if not mode.look_behind:
            return (self.best(row),)
        ranked = self.scores[row].sort(descending=True, stable=True)
        near = ranked.values >= ranked.values[0] - mode.look_behind
        chosen = ranked.indices[:MOST_LOOKS][near[:MOST_LOOKS]].tolist()
        # Nothing is near a NaN; such a sample has a look too, in which it is found to have no answer.
        return tuple(sorted(chosen)) or (self.best(row),)

    def after_looks(self, row: int, signs: Mapping[int, Tensor]) -> dict[int, float]:
        """The routing coefficients of the tasks that were looked at, once it is known what came of it.

        `signs` holds the head signs [3] that each task's own second pass gave. The tasks share what their
        coefficients were together by that and all evidence before.
        """
        assert self.sign_spreads is not None
        tasks, looked = list(signs), torch.stack(list(signs.values()))
        least = torch.tensor([0.0, LEAST_SHARPNESS_SPREAD, 0.0])
        said = _comparable(looked) / (self.sign_spreads[row].maximum(least) + STD_EPSILON)
        scores = self.scores[row, tasks] + LOOK_WEIGHT * said.sum(1)
        together = float(self.routing_coefficients[row, tasks].sum())
        shares: list[float] = (scores / WHOLE_TEMPERATURE).softmax(0).tolist()
        return {task: together * share for task, share in zip(tasks, shares, strict=True)}


class EvidenceRouter:
    """Combines evidence. Thread-safe: it keeps nothing of the samples."""

    def __init__(
        self,
        mode: Mode,
        residual: SubspaceRouter,
        early_blocks: Mapping[str, Tensor],
        calibration: Calibration | None = None,
    ) -> None:
        """`early_blocks` holds vh [T, R, D] of every task by linear, of `early_linears`."""
        self.mode = mode
        self.bases = {linear: orthonormal_rows(blocks) for linear, blocks in early_blocks.items()}
        self._residual = residual
        self._early_discriminant: Discriminant | None = None
        self._whole_discriminant: Discriminant | None = None
        if calibration is not None:
            self._whole_discriminant = calibration.discriminant(len(early_blocks) + LATE_KINDS)
            # Where every image gets the whole evidence, nothing comes of the early one by itself.
            if mode.certain_lead < math.inf:
                self._early_discriminant = calibration.discriminant(len(early_blocks))

    @property
    def nbytes(self) -> int:
        """The memory of the bases."""
        return sum(basis.nbytes for basis in self.bases.values())

    def early(self, energies: Tensor, candidates: Tensor) -> Evidence:
        """From the early energies [B, K, T] alone; candidates [B, T] bool on the CPU."""
        kinds = energies.cpu()
        explained = kinds.mean(1)
        scores = standardised(nearness(explained), candidates)
        judged = _judged(kinds, candidates, self._early_discriminant)
        calibrated = _calibrated(scores, candidates, judged, EARLY_TEMPERATURE)
        coefficients = (calibrated / EARLY_TEMPERATURE).softmax(1)
        leads = _leads(scores, calibrated)
        return Evidence(calibrated, coefficients, explained, judged.typicality, kinds, leads)

    def whole(self, early: Evidence, features: Tensor, signs: Tensor, candidates: Tensor) -> Evidence:
        """Adds the router's features [B, D] and each head's signs [B, T, 3]."""
        residuals, signs = self._residual.residuals(features), signs.cpu()
        late = explained_share(features, residuals)
        kinds = torch.cat([early.kinds, late.unsqueeze(1), signs[:, :, 0].unsqueeze(1)], dim=1)
        comparable = _comparable(signs)
        pieces = (nearness(early.explained), -residuals, comparable[:, :, 0])
        scores = torch.stack([standardised(piece, candidates) for piece in pieces]).sum(0)
        judged = _judged(kinds, candidates, self._whole_discriminant)
        calibrated = _calibrated(scores, candidates, judged, WHOLE_TEMPERATURE)
        return Evidence(
            calibrated,
            (calibrated / WHOLE_TEMPERATURE).softmax(1),
            # The geometric mean of both shares, so that it is of the same size as early evidence alone.
            (early.explained * late).sqrt(),
            judged.typicality,
            kinds,
            _leads(scores, calibrated),
            residuals,
            torch.stack([spread(sign, candidates) for sign in comparable.unbind(2)], dim=1),
        )


def _comparable(signs: Tensor) -> Tensor:
    """Head signs [..., 3] with the cosine's nearness in place of the cosine."""
    return torch.cat([nearness(signs[..., :1]), signs[..., 1:]], dim=-1)


def _judged(kinds: Tensor, candidates: Tensor, discriminant: Discriminant | None) -> Judgement:
    """What a calibration says, or nothing."""
    if discriminant is not None:
        return discriminant.judge(kinds, candidates)
    nothing = torch.zeros(candidates.shape)
    return Judgement(nothing, nothing + 1)


def _calibrated(scores: Tensor, candidates: Tensor, judged: Judgement, temperature: float) -> Tensor:
    """The scores [B, T] with what the judgement adds to them, -inf for tasks that are no candidates."""
    # Times the temperature, so that the coefficients are multiplied by a power of the probabilities.
    return (scores + temperature * judged.log_probabilities).masked_fill(~candidates, -torch.inf)


def _leads(scores: Tensor, calibrated: Tensor) -> Tensor:
    """How far each row's best task by `calibrated` is ahead of all others in `scores`, [B]."""
    best = calibrated.argmax(1, keepdim=True)
    others = scores.masked_fill(calibrated.isneginf(), -torch.inf).scatter(1, best, -torch.inf).amax(1)
    return scores.gather(1, best).squeeze(1) - others
