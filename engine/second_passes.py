"""The planned second passes of a batch, run in segments of one expert set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mass_serve.backbone import Batch, ExpertSet, Packed, Passes, joined, lengths_of
from mass_serve.engine.set_cache import SetCache, SetKey
from mass_serve.kernels import group_by_expert_set
from mass_serve.kernels.transfers import selected_rows


@dataclass(frozen=True)
class SecondPass:
    """One run of the encoder with the weights of one expert set, for one sample."""

    sample: int  # its row in the batch
    expert_set: tuple[int, ...]
    # The block that it resumes at, and the tokens [L, D] that enter it, where the first pass stopped; None of
    # both: it begins with the input.
    start: int | None = None
    tokens: Tensor | None = None
    each_token: bool = False  # wanted are the last hidden states of all tokens, and not the embedding

    def __post_init__(self) -> None:
        if (self.start is None) != (self.tokens is None):
            raise ValueError("a second pass that resumes needs a block and the tokens that enter it")
        if self.each_token and (self.resumes or len(self.expert_set) > 1):
            raise ValueError("a second pass for each token is of one task, and begins with the input")

    @property
    def resumes(self) -> bool:
        """Tells whether it resumes where the first pass stopped."""
        return self.tokens is not None


# (expert set, the tokens of its samples in the batch) -> the form that the set runs in
FormChooser = Callable[[tuple[int, ...], int], SetKey]


@dataclass(frozen=True)
class SecondPassRunner:
    """Runs second passes on one device. A batch may need more expert sets than fit the cache at once."""

    passes: Passes
    set_cache: SetCache
    choose_form: FormChooser

    def run(self, second_passes: Sequence[SecondPass], inputs: Batch) -> Tensor:
        """The embeddings [n, P] of n second passes of B samples with patches [B, L - 1, 3 p p] or words."""
        order: list[int] = []
        parts: list[Batch] = []
        for start, rows in _rows_by_start(second_passes).items():
            segments = group_by_expert_set([second_passes[row].expert_set for row in rows])
            grouped = [rows[place] for place in segments.permutation]
            own = _inputs([second_passes[row] for row in grouped], inputs)
            second = partial(self.passes.second, start=start)
            parts += self._run_segments(second, own, segments.segment_expert_sets, segments.segment_offsets)
            order += grouped
        embeddings = joined(parts)
        assert isinstance(embeddings, Tensor)
        places = sorted(range(len(order)), key=order.__getitem__)
        return selected_rows(embeddings, places)

    def states(self, second_passes: Sequence[SecondPass], inputs: Batch) -> list[Tensor]:
        """The last hidden states [L, D] of second passes for each token, of B samples as above."""
        segments = group_by_expert_set([one.expert_set for one in second_passes])
        own = _inputs([second_passes[row] for row in segments.permutation], inputs)
        parts = self._run_segments(
            self.passes.states, own, segments.segment_expert_sets, segments.segment_offsets
        )
        of_rows = dict(
            zip(segments.permutation, (of_sample for part in parts for of_sample in part), strict=True)
        )
        return [of_rows[row] for row in range(len(second_passes))]

    def _run_segments(
        self,
        run: Callable[[Batch, Sequence[ExpertSet], Sequence[int]], Batch],
        inputs: Batch,
        expert_sets: Sequence[tuple[int, ...]],
        offsets: Sequence[int],
    ) -> list[Batch]:
        """What passes give for rows `offsets[i]:offsets[i + 1]` with `expert_sets[i]`, in the rows' order."""
        lengths = lengths_of(inputs)
        keys = [
            self.choose_form(expert_set, sum(lengths[offsets[i] : offsets[i + 1]]))
            for i, expert_set in enumerate(expert_sets)
        ]
        parts: list[Batch] = []
        for wave in self.set_cache.waves(keys):
            first = offsets[wave.start]
            own_offsets = [offsets[i] - first for i in range(wave.start, wave.stop + 1)]
            weights = self.set_cache.get([keys[i] for i in wave])
            rows = inputs[first : offsets[wave.stop]]
            parts.append(run(rows, weights, own_offsets))
        return parts


def in_segments(second_passes: Iterable[SecondPass]) -> list[SecondPass]:
    """Second passes in the order in which they run, those of one sample set apart by their expert sets.

    What is made of them in this order is in its place as it comes from the device.
    """
    return sorted(second_passes, key=lambda one: (one.resumes, one.start or 0, one.expert_set))


def _rows_by_start(second_passes: Sequence[SecondPass]) -> dict[int | None, list[int]]:
    """The places of second passes by the block that they start at, those that begin with the input first."""
    rows: dict[int | None, list[int]] = {}
    for row, one in sorted(enumerate(second_passes), key=lambda place: place[1].resumes):
        rows.setdefault(one.start, []).append(row)
    return rows


def _inputs(second_passes: Sequence[SecondPass], inputs: Batch) -> Batch:
    """Returns what second passes begin with, all of them with the batch's inputs or all with tokens."""
    tokens = [one.tokens for one in second_passes if one.tokens is not None]
    if not tokens:
        samples = [one.sample for one in second_passes]
        return selected_rows(inputs, samples) if isinstance(inputs, Tensor) else inputs[samples]
    return Packed.of(tokens) if isinstance(inputs, Packed) else torch.stack(tokens)
