"""Which of a pass's tokens belong to one sample.

The tokens x of equally long samples are [B, n, D], those of others [N, 1, D]: to everything that takes a
token by itself (linears, LayerNorms, activations) they are N samples of one token. What takes a sample as a
whole goes through a layout, which has equally long samples computed together as [b, n, D]; a sample's bits do
not depend on how many those are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from mass_serve.backbone.packed import Batch, Packed
from mass_serve.backbone.weights.protocol import BatchWeights, EncoderWeights
from mass_serve.kernels.transfers import uploaded

# Of the tokens [b, n, D] of samples: the places [b, k] int64 of k tokens of each, ascending, and for every
# token which of these k, from 0, stands for it, [b, n] int64.
Choose = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Chosen:
    """Some tokens of every sample, and which of them stands for each of its tokens."""

    rows: Tensor  # [K] int64: their rows among all tokens, sample by sample
    standing: Tensor  # [N] int64: for every token, which of these K stands for it
    lengths: tuple[int, ...]  # [B]: how many each sample has, K together
    is_even: bool  # samples are equally long

    def taken(self, x: Tensor) -> Tensor:
        """Those of the tokens x: [B, k, D], or [K, 1, D]."""
        rows = x.flatten(0, 1)[self.rows]
        return rows.view(len(self.lengths), -1, x.shape[2]) if self.is_even else rows.unsqueeze(1)

    def shared(self, y: Tensor, x: Tensor) -> Tensor:
        """For every token of x, in its place, the one of the chosen tokens y that stands for it."""
        return y.flatten(0, 1)[self.standing].view(x.shape)

    def weights(self, of_samples: BatchWeights) -> EncoderWeights:
        """Their weights, of those that their samples have. On a GPU that may be a plan to be sent."""
        return of_samples if self.is_even else of_samples.of_tokens((0, *accumulate(self.lengths)))


class Layout(Protocol):
    """The samples of a pass's tokens x."""

    def firsts(self, x: Tensor) -> Tensor:
        """The first token of every sample, [B, 1, D]."""
        ...

    def each(self, compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Returns `compute` of the tokens [b, n, D] of samples, in the places of those tokens."""
        ...

    def reduced(self, compute: Callable[..., Tensor], x: Tensor, *of_samples: Tensor) -> Tensor:
        """Returns `compute` of the tokens [b, n, D] of samples, which is one [...] of each: [B, ...].

        What there is `of_samples` [B, ...] is handed to it, too.
        """
        ...

    def chosen(self, choose: Choose, x: Tensor) -> Chosen:
        """The tokens that `choose` takes of every sample."""
        ...

    def places(self, x: Tensor) -> Tensor:
        """The place of each token in its sample, [n] int64 where all samples are alike, else [N, 1]."""
        ...

    def batch(self, x: Tensor) -> Batch:
        """The tokens as they leave a pass."""
        ...


class EqualLengths:
    """The layout of equally long samples: x is [B, n, D]."""

    def firsts(self, x: Tensor) -> Tensor:
        return x[:, :1]

    def each(self, compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return compute(x)

    def reduced(self, compute: Callable[..., Tensor], x: Tensor, *of_samples: Tensor) -> Tensor:
        return compute(x, *of_samples)

    def chosen(self, choose: Choose, x: Tensor) -> Chosen:
        places, standing = choose(x)
        samples, count = places.shape
        sample = torch.arange(samples, device=x.device).unsqueeze(1)
        rows, of_all = places + sample * x.shape[1], standing + sample * count
        return Chosen(rows.flatten(), of_all.flatten(), (count,) * samples, is_even=True)

    def places(self, x: Tensor) -> Tensor:
        return torch.arange(x.shape[1], device=x.device)

    def batch(self, x: Tensor) -> Batch:
        return x


@dataclass(frozen=True)
class Group:
    """Equally long samples."""

    length: int  # n
    samples: Tensor  # [b] int64
    rows: Tensor  # [b n] int64


class AnyLengths:
    """The layout of samples of the lengths of a packed batch: x is [N, 1, D]."""

    def __init__(self, packed: Packed) -> None:
        self._lengths = packed.lengths
        self._offsets = packed.offsets
        self._device = packed.device
        self._places = packed.places().unsqueeze(1)

    def firsts(self, x: Tensor) -> Tensor:
        return x[self._first_rows]

    def each(self, compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        computed = [compute(self._tokens(group, x)).flatten(0, 1) for group in self._groups]
        return _in_places(computed, [group.rows for group in self._groups]).unsqueeze(1)

    def reduced(self, compute: Callable[..., Tensor], x: Tensor, *of_samples: Tensor) -> Tensor:
        computed = [
            compute(self._tokens(group, x), *(own[group.samples] for own in of_samples))
            for group in self._groups
        ]
        return _in_places(computed, [group.samples for group in self._groups])

    def chosen(self, choose: Choose, x: Tensor) -> Chosen:
        of_groups = [choose(self._tokens(group, x)) for group in self._groups]
        counts = {
            group.length: places.shape[1] for group, (places, _) in zip(self._groups, of_groups, strict=True)
        }
        lengths = tuple(counts[length] for length in self._lengths)
        starts = uploaded(torch.tensor([0, *accumulate(lengths)][:-1]), self._device)
        rows, standing = [], []
        for group, (places, own) in zip(self._groups, of_groups, strict=True):
            rows.append(group.rows.view(own.shape).gather(1, places).flatten())
            standing.append((own + starts[group.samples].unsqueeze(1)).flatten())
        # Samples are one behind the other, as are the tokens of each.
        in_order = torch.cat(rows).sort().values
        return Chosen(
            in_order, _in_places(standing, [group.rows for group in self._groups]), lengths, is_even=False
        )

    def places(self, x: Tensor) -> Tensor:  # noqa: ARG002 - the lengths say it
        return self._places

    def batch(self, x: Tensor) -> Batch:
        return Packed(x[:, 0], self._lengths)

    @cached_property
    def _first_rows(self) -> Tensor:
        return uploaded(torch.tensor(self._offsets[:-1]), self._device)

    @cached_property
    def _groups(self) -> list[Group]:
        by_length: dict[int, list[int]] = defaultdict(list)
        for sample, length in enumerate(self._lengths):
            by_length[length].append(sample)
        return [self._group(length, samples) for length, samples in by_length.items()]

    def _group(self, length: int, samples: list[int]) -> Group:
        starts = torch.tensor([self._offsets[sample] for sample in samples])
        rows = (starts.unsqueeze(1) + torch.arange(length)).flatten()
        return Group(length, uploaded(torch.tensor(samples), self._device), uploaded(rows, self._device))

    def _tokens(self, group: Group, x: Tensor) -> Tensor:
        """The tokens [b, n, D] of a group; a view where there is no other group."""
        rows = x[:, 0] if len(self._groups) == 1 else x[group.rows, 0]
        return rows.view(len(group.samples), group.length, -1)


def _in_places(parts: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """The rows of all parts at their places, which are every place once."""
    if len(parts) == 1:
        return parts[0]
    rows = torch.cat(list(parts))
    return torch.empty_like(rows).index_copy_(0, torch.cat(list(places)), rows)


@dataclass(frozen=True)
class Tokens:
    """The tokens of a pass, and the weights that they and their samples have."""

    x: Tensor  # [B, n, D], or [N, 1, D]
    layout: Layout
    weights: EncoderWeights  # of the tokens
    sample_weights: BatchWeights  # of what is one vector [B, 1, D] of each sample

    @classmethod
    def of(cls, batch: Batch, weights: BatchWeights) -> Tokens:
        """The tokens of a batch whose samples have those weights."""
        if isinstance(batch, Packed):
            layout: Layout = AnyLengths(batch)
            return cls(batch.rows.unsqueeze(1), layout, weights.of_tokens(batch.offsets), weights)
        return cls(batch, EqualLengths(), weights, weights)

    @property
    def places(self) -> Tensor:
        """The place of each token in its sample, of a shape that broadcasts to that of the tokens."""
        return self.layout.places(self.x)

    def each(self, x: Tensor) -> Tokens:
        """The same tokens, changed to x."""
        return replace(self, x=x)

    def one_each(self, x: Tensor) -> Tokens:
        """What is made of the samples, one token x [B, 1, D] of each."""
        return Tokens(x, EqualLengths(), self.sample_weights, self.sample_weights)

    def firsts(self) -> Tokens:
        """The first token of each sample."""
        return self.one_each(self.layout.firsts(self.x))
