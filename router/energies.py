"""What shares of energy in the tasks' subspaces say, of whole fine-tunings and of adapters.

The leading directions of a whole fine-tuning lie along what enters the matrix: the more of an input they
explain, the likelier it is the task's. With e_lt the share of task t at linear l, of R_lt directions in D,

    explained_t = mean over l of log(e_lt D / R_lt)

An adapter's directions are where it began, at random, and explain as much of its own inputs as of any. But
how much it changed along each of them tells what it was trained on: its change is a sum of gradients times
inputs seen through these directions. With p_i the share of energy along direction i, s_i its singular value,

    profile_t = mean over l of log(sum_i s_i p_i / sum_i s_i) - log(mean_i p_i) - null_lt

is how much more of the energy lies along the directions that changed most, beyond what drawn inputs have
there (null): noise, and pictures of shapes. Where adapters are among the tasks, the profiles of all are
added, and what an adapter explains, which tells nothing, counts as much as what the best whole fine-tuning
explains: it speaks neither for nor against.

A task without directions at any of the linears, which was created of other tasks or left the encoder alone,
explains what the best of the others does, too, and has the best profile of them: energies speak neither for
nor against it.

How much an input is like a task's own is told in the same units, whatever the task is: by how far explained_t
(of an adapter profile_t) is beyond what it is for drawn inputs (see `EnergyEvidence.likeness`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.router.discriminant import LEAST_SHARE
from mass_serve.router.subspaces import LinearSubspaces
from mass_serve.router.weights import Weights

# How steeply likeness rises where an input leaves what drawn inputs are, and its power. Chosen by `mass-serve
# eval suite/store suite/evaluation --ood suite/ood`, on the suites `demo`, `near_duplicates`, `weak_demo`,
# `real_vision` and `real_text`: a larger power tells more on real encoders and less on the demo.
LIKENESS_SLOPE = 4.0
LIKENESS_POWER = 2


@dataclass(frozen=True)
class DrawnEnergies:
    """Means over drawn inputs, from which others are measured; of T tasks at K linears."""

    shares: Tensor  # [K, T] float32: of log(e_lt)
    profiles: Tensor  # [K, T] float32: of what profile_t averages over l, which is null_lt; 0 without

    def at(self, linears: slice) -> DrawnEnergies:
        """Those at some of the linears."""
        return DrawnEnergies(self.shares[linears], self.profiles[linears])


class EnergyEvidence:
    """Judges energies at K linears, those of `subspaces` in their order."""

    def __init__(self, subspaces: Sequence[LinearSubspaces], adapters: Tensor) -> None:
        """`adapters` [T] bool tells which tasks are."""
        ranks = torch.tensor([one.ranks for one in subspaces], dtype=torch.float32).view(-1, len(adapters))
        widths = torch.tensor([one.directions.width for one in subspaces], dtype=torch.float32)
        self._adapters, self._ranks = adapters, ranks
        self._without = (ranks == 0).all(0)  # tasks without directions
        self._unexplained = adapters | self._without
        # A whole fine-tuning that left a matrix alone explains nothing there: none is compared there.
        self._compared = (ranks[:, ~self._unexplained] > 0).all(1) & (ranks > 0).any(1)
        if int((~self._without).sum()) < min(2, len(adapters)):
            self._compared = torch.zeros_like(self._compared)  # there is none to compare the one task with
        self._by_chance = ((ranks / widths.unsqueeze(1)) + LEAST_SHARE).log()
        self._null = torch.zeros_like(ranks)
        self._drawn = torch.zeros(len(adapters))

    @property
    def tells(self) -> bool:
        """Whether there is a linear where all tasks are compared, being whole fine-tunings."""
        return bool(self._compared.any()) and not bool(self._unexplained.any())

    def drawn(self, energies: Tensor) -> DrawnEnergies:
        """What drawn inputs with these energies [N, K, T], or [N, K, 2 T], have."""
        shares = (energies[:, :, : len(self._adapters)] + LEAST_SHARE).log().mean(0)
        has_profiles = bool(self._adapters.any())
        return DrawnEnergies(
            shares, self._profiles(energies).mean(0) if has_profiles else torch.zeros_like(shares)
        )

    def measure_from(self, drawn: DrawnEnergies) -> None:
        """Takes what drawn inputs have for what others are measured from."""
        self._null = drawn.profiles
        if self._compared.any():
            self._drawn = (drawn.shares - self._by_chance)[self._compared].mean(0)

    def scores(self, energies: Tensor, candidates: Tensor, weights: Weights) -> Tensor:
        """The scores [B, T] by energies [B, K, T], or [B, K, 2 T] where profiles are measured."""
        explained = self._explained(energies)
        if not self._unexplained.any():
            return weights.share * explained
        explained = _neutral(explained, self._unexplained, candidates)
        if not self._adapters.any():
            return weights.share * explained
        profile = _neutral(self._profile(energies), self._without, candidates)
        return weights.share * (explained + profile)

    def likeness(self, energies: Tensor) -> Tensor:
        """How much inputs are like those of each task, [B, T] from 0 to 1; 1 where nothing is compared.

        `((1 + z / (1 + |z|)) / 2)^2` with z = 4 x, where x is explained_t less its mean over drawn inputs, or
        the profile of an adapter. A task without directions is as like as the likest of the others.
        """
        beyond = self._explained(energies) - self._drawn
        if self._adapters.any():
            beyond = torch.where(self._adapters, self._profile(energies), beyond)
        elif not self._compared.any():
            return torch.ones_like(beyond)
        # And no sigmoid, whose bits depend on the place of an element in its tensor.
        z = LIKENESS_SLOPE * _neutral(beyond, self._without, torch.ones_like(beyond, dtype=torch.bool))
        return ((1 + z / (1 + z.abs())) / 2) ** LIKENESS_POWER

    def variation(self, energies: Tensor) -> float:
        """How far what tasks explain varies over N inputs, by their energies [N, K, T]; of no adapter.

        That is the standard deviation of explained_t less its mean over the tasks, averaged over the tasks.
        """
        explained = self._explained(energies)
        return float((explained - explained.mean(1, keepdim=True)).std(0).mean())

    def _explained(self, energies: Tensor) -> Tensor:
        """Explained [B, T], 0 where nothing is compared."""
        shares = energies[:, self._compared, : len(self._adapters)]
        if not shares.shape[1]:
            return torch.zeros(len(energies), len(self._adapters))
        return ((shares + LEAST_SHARE).log() - self._by_chance[self._compared]).mean(1)

    def _profile(self, energies: Tensor) -> Tensor:
        """The profile_t [B, T] of every task."""
        linears = (self._ranks > 0).sum(0).clamp_min(1)
        return (self._profiles(energies) - self._null).sum(1) / linears

    def _profiles(self, energies: Tensor) -> Tensor:
        """The profiles [B, K, T] before the null is taken off, 0 where a task left the matrix alone."""
        plain, weighted = energies.chunk(2, dim=2)
        mean = plain / self._ranks.clamp_min(1)
        # Shares along single directions are a hundredth of those of a subspace.
        ratios = (weighted + LEAST_SHARE**2).log() - (mean + LEAST_SHARE**2).log()
        return torch.where(self._ranks > 0, ratios, 0.0)


def _neutral(evidence: Tensor, untold: Tensor, candidates: Tensor) -> Tensor:
    """Evidence [B, T] with the largest of the other candidates for the tasks `untold` [T] by it.

    It is 0 where all candidates are such.
    """
    others = evidence.masked_fill(untold | ~candidates, -torch.inf).amax(1, keepdim=True)
    return torch.where(untold, others.nan_to_num(neginf=0.0), evidence)
