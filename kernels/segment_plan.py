"""Where the segments of one pass lie and where their weights are: on the device, built once, read by all.

Kernels are launched for a fixed number of tiles and read from these tensors which rows a tile has and whose
weights they want. Their addresses never change, so a CUDA graph that was captured with one plan replays
with whatever `update` has put into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import is_
from typing import NamedTuple

import torch
from torch import Tensor

from mass_serve.kernels.records import TileField
from mass_serve.kernels.transfers import pinned_zeros

# int32s: an address that is no multiple of 16 bytes is another kernel to Triton. So many a tile has, too.
ALIGNMENT = len(TileField)
INTS_OF_AN_ADDRESS = 2


@dataclass(frozen=True)
class Tiling:
    """One way to cut the rows of a pass into tiles."""

    tokens: int  # rows of each sample
    block: int  # rows of a tile
    per_segment: bool  # no tile has rows of two segments; otherwise: of two different weight matrices


class Span(NamedTuple):
    """Rows that are cut into tiles by themselves, of which the number among all follows by a product."""

    tiles: int
    offset: int  # tile i begins at row `i * block + offset`
    stop: int  # the row behind the last
    block: int
    tokens: int
    shift: int  # tile i is put at place `i + shift`


class SegmentPlan:
    """The segments of a pass over at most `samples` samples in at most `max_segments` segments.

    Samples beyond the last segment are the tail: kernels write zeros there. What the device needs of the next
    pass lies in one piece of its memory, and is sent there in one copy.
    """

    def __init__(
        self,
        samples: int,
        max_segments: int,
        record_length: int,
        device: torch.device,
        *,
        tilings: Sequence[Tiling] = (),
        may_own_weights: bool = True,
        table: Tensor | None = None,
        token_offsets: Sequence[int] = (),
    ) -> None:
        """`tilings` are those that the pass, or the plans of its tokens, are known to ask for; any other is
        sent when it is asked for. Where no segment ever has weight matrices of its own, not
        `may_own_weights`, fewer tiles are launched.

        `table` is another plan's, where this one has the same records, and `token_offsets` are those of its
        samples, where this one's are their tokens.
        """
        self.samples = samples
        self.max_segments = max_segments
        self.device = device
        self._may_own_weights = may_own_weights
        heights = [self._height(tiling) for tiling in tilings]
        sizes = [
            max_segments + 1,
            samples,
            len(token_offsets),
            *(height * len(TileField) for height in heights),
        ]
        starts = [*accumulate(map(_aligned, sizes), initial=0)]
        own_table = 0 if table is not None else max_segments * record_length * INTS_OF_AN_ADDRESS
        memory = torch.zeros(starts[-1] + own_table, dtype=torch.int32, device=device)
        pieces = (memory[at : at + size] for at, size in zip(starts, sizes, strict=False))
        offsets, of_samples, of_tokens, *maps = pieces
        self._memory, self._starts = memory, starts
        self._token_offsets = torch.tensor(token_offsets, dtype=torch.int32)
        # [B + 1] int32, where each of B samples begins if this plan's are their tokens; else None
        self.token_offsets = of_tokens if token_offsets else None
        # tokens of the longest of them; 0 where there are none
        self.longest = max((stop - start for start, stop in pairwise(token_offsets)), default=0)
        # [max_segments + 1] int32, in samples; the unused ones repeat the last
        self.offsets = offsets
        # [samples] int32; -1 in the tail
        self.sample_segments = of_samples.fill_(-1)
        # [max_segments, record_length] int64: each segment's record
        if table is None:
            table = memory[starts[-1] :].view(torch.int64).view(max_segments, record_length)
        self.table = table
        self._taken: tuple[list[int], list[bool], list[Tensor]] | None = None
        self._own_weights: list[bool] = []
        self._host_segments = torch.full((samples,), -1, dtype=torch.int32)  # what `sample_segments` is to be
        self._runs: list[tuple[int, int]] = []
        self._segments: list[tuple[int, int]] = []
        self._known = list(tilings)
        # Those that it has been asked for or knew, and the plans of its tokens.
        self.asked = set(tilings)
        self._tiles = {
            tiling: own.view(-1, len(TileField)) for tiling, own in zip(tilings, maps, strict=True)
        }

    def update(
        self, segment_offsets: Sequence[int], records: Sequence[Tensor], own_weights: Sequence[bool]
    ) -> None:
        """Takes the segments of the next pass.

        `records` [record_length] int64 on the CPU are laid out as `kernels.records` says; `own_weights` is
        true where a segment's linears have weight matrices of their own. Waits for nothing on the device, and
        sends nothing where the last pass had the same segments.
        """
        count = len(records)
        if len(segment_offsets) != count + 1 or count > self.max_segments:
            raise ValueError(f"{count} segments, at most {self.max_segments}, offsets {segment_offsets}")
        if segment_offsets[0] != 0 or segment_offsets[-1] > self.samples:
            raise ValueError(f"offsets must lead from 0 to at most {self.samples}, got {segment_offsets}")
        if any(own_weights) and not self._may_own_weights:
            raise ValueError("a segment has weight matrices of its own in a plan that has no tiles for them")
        if not self._has_taken(segment_offsets, own_weights, records):
            self._taken = None  # until all of it is sent
            self._cut(segment_offsets, own_weights, records)
            self._taken = list(segment_offsets), list(own_weights), list(records)

    def of_tokens(self, token_offsets: Sequence[int]) -> SegmentPlan:
        """The plan of a pass whose samples are the tokens of this one's, by the same records.

        Tokens `token_offsets[i]:token_offsets[i + 1]` are sample i's, and belong to its segment.
        """
        length = self.table.shape[1]
        plan = SegmentPlan(
            token_offsets[-1],
            self.max_segments,
            length,
            self.device,
            may_own_weights=self._may_own_weights,
            tilings=self._known,
            table=self.table,
            token_offsets=token_offsets,
        )
        plan.asked = self.asked
        ends = [0, *(stop for _, stop in self._segments)]
        plan._cut([token_offsets[end] for end in ends], self._own_weights, [])
        return plan

    def _has_taken(
        self, segment_offsets: Sequence[int], own_weights: Sequence[bool], records: Sequence[Tensor]
    ) -> bool:
        """Tells whether these are the segments that the device has already.

        Records are kept and never written to, so that the same tensor says the same.
        """
        if self._taken is None:
            return False
        offsets, own, taken = self._taken
        same = offsets == list(segment_offsets) and own == list(own_weights)
        return same and all(map(is_, taken, records))

    def _cut(
        self, segment_offsets: Sequence[int], own_weights: Sequence[bool], records: Sequence[Tensor]
    ) -> None:
        """Takes where the segments lie, and what they need where this plan has a table of its own."""
        padding = [segment_offsets[-1]] * (self.max_segments - len(own_weights))
        self._own_weights = list(own_weights)
        self._segments = list(pairwise(segment_offsets))
        self._runs = _runs(self._segments, own_weights)
        numbers = torch.arange(len(own_weights), dtype=torch.int32)
        sizes = torch.tensor([stop - start for start, stop in self._segments])
        offsets = torch.tensor([*segment_offsets, *padding], dtype=torch.int32)
        parts = (offsets, numbers.repeat_interleave(sizes), self._token_offsets)
        length = self._starts[-1] + len(records) * self.table.shape[1] * INTS_OF_AN_ADDRESS
        sent = pinned_zeros(length, torch.int32, self.device)
        for start, part in zip(self._starts, parts, strict=False):
            sent[start : start + len(part)] = part
        self._host_segments = sent[self._starts[1] : self._starts[1] + self.samples]
        self._host_segments[segment_offsets[-1] :] = -1
        if self._known:
            self._put_tiles(sent, self._known, self._starts[len(parts) :])
        if records:
            rows = sent[self._starts[-1] :].view(torch.int64).view(len(records), -1)
            torch.stack(list(records), out=rows)
        self._memory[: len(sent)].copy_(sent, non_blocking=True)
        for tiling, tiles in self._tiles.items():
            if tiling not in self._known:
                tiles.copy_(self._tile_map(tiling), non_blocking=True)

    def tiles(self, tiling: Tiling) -> Tensor:
        """The map of the pass's tiles, [capacity, len(TileField)] int32."""
        if tiling not in self._tiles:
            self.asked.add(tiling)
            self._tiles[tiling] = self._tile_map(tiling).to(self.device, non_blocking=True)
        return self._tiles[tiling]

    def _height(self, tiling: Tiling) -> int:
        """How many tiles there are at most.

        Of each span of segments and of the tail one may not be full, and none are more than if each sample
        were a span.
        """
        divided = tiling.per_segment or self._may_own_weights
        spans = self.max_segments if divided else min(1, self.max_segments)
        of_sample = -(-tiling.tokens // tiling.block)
        return min(-(-self.samples * tiling.tokens // tiling.block) + spans, self.samples * of_sample)

    def _tile_map(self, tiling: Tiling) -> Tensor:
        """One map, on the host."""
        memory = pinned_zeros(self._height(tiling) * len(TileField), torch.int32, self.device)
        self._put_tiles(memory, [tiling], [0])
        return memory.view(-1, len(TileField))

    def _put_tiles(self, memory: Tensor, tilings: Sequence[Tiling], starts: Sequence[int]) -> None:
        """Writes the map of each tiling into zeros of the host, from the number where it starts there.

        The tiles of all maps are computed at once: each map alone has few, and an operation takes as long for
        these as for all.
        """
        spans = self._spans(tilings, starts)
        of_spans = torch.tensor(spans)
        numbers = torch.arange(sum(span.tiles for span in spans))
        of_tiles = of_spans.repeat_interleave(of_spans[:, 0], dim=0, output_size=len(numbers))
        _, offset, end, block, tokens, shift = of_tiles.unbind(1)
        first = numbers * block + offset
        stop = torch.minimum(first + block, end)
        samples = torch.stack([first, stop - 1]) // tokens
        rows = torch.stack([first, stop, *self._host_segments[samples].unbind()], dim=1)
        maps = memory[: len(memory) // len(TileField) * len(TileField)].view(-1, len(TileField))
        maps[numbers + shift] = rows.int()

    def _spans(self, tilings: Sequence[Tiling], starts: Sequence[int]) -> list[Span]:
        """What is cut into tiles, of each tiling in turn: segments or runs, and the tail."""
        used = self._segments[-1][1] if self._segments else 0
        spans, count = list[Span](), 0
        for tiling, start in zip(tilings, starts, strict=False):
            place, tokens, block = start // len(TileField), tiling.tokens, tiling.block
            for first, stop in (
                *(self._segments if tiling.per_segment else self._runs),
                (used, self.samples),
            ):
                tiles = -(-(stop - first) * tokens // block)
                offset = first * tokens - count * block
                spans.append(Span(tiles, offset, stop * tokens, block, tokens, place - count))
                place, count = place + tiles, count + tiles
        return spans


def _runs(segments: Sequence[tuple[int, int]], own_weights: Sequence[bool]) -> list[tuple[int, int]]:
    """Neighbouring segments without weights of their own, joined: their tiles need not end with them."""
    runs: list[tuple[int, int]] = []
    joinable = False
    for (start, stop), own in zip(segments, own_weights, strict=True):
        if joinable and not own:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((start, stop))
        joinable = not own
    return runs


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
