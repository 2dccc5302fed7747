"""Samples of different lengths in one batch, without padding: the tokens of all, one sample behind the other.

    texts = Packed.of([ids_a, ids_b])  # [3, 2] and [5, 2]: rows [8, 2], lengths (3, 5)
    texts[1:]                          # the second text, as a batch of one

It is indexed by samples as a tensor of equally long ones is, so whoever chooses samples treats both alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from mass_serve.kernels.transfers import uploaded


@dataclass(frozen=True, eq=False)
class Packed:
    """The tokens of B samples. Raises ValueError unless all lengths are above 0 and add up to the rows."""

    rows: Tensor  # [N, ...]
    lengths: tuple[int, ...]  # [B], N together

    def __post_init__(self) -> None:
        if sum(self.lengths) != len(self.rows) or any(length < 1 for length in self.lengths):
            raise ValueError(f"{len(self.rows)} rows cannot be samples of {self.lengths} tokens")

    @classmethod
    def of(cls, samples: Sequence[Tensor]) -> Packed:
        """The batch of samples [n, ...] each."""
        return cls(torch.cat(list(samples)), tuple(map(len, samples)))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Tensor]:
        """Yields the tokens [n, ...] of every sample."""
        return iter(self.rows.split(list(self.lengths)))  # type: ignore[no-untyped-call]

    def __getitem__(self, samples: slice | Sequence[int] | Tensor) -> Packed:
        """The batch of those samples, a view where they are neighbours."""
        if isinstance(samples, slice):
            start, stop, step = samples.indices(len(self))
            if step == 1:
                stop = max(start, stop)
                return Packed(self.rows[self.offsets[start] : self.offsets[stop]], self.lengths[start:stop])
            samples = range(start, stop, step)
        chosen = samples.tolist() if isinstance(samples, Tensor) else list(samples)
        rows = torch.cat([torch.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen] or [_NONE])
        return Packed(self.rows[uploaded(rows, self.device)], tuple(self.lengths[i] for i in chosen))

    @property
    def device(self) -> torch.device:
        """The device of the rows."""
        return self.rows.device

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The row where each sample begins, and N: [B + 1]."""
        return (0, *accumulate(self.lengths))

    def places(self) -> Tensor:
        """The place of each row in its sample, [N] int64, from 0 on."""
        starts = torch.tensor(self.offsets[:-1]).repeat_interleave(torch.tensor(self.lengths))
        return uploaded(torch.arange(len(self.rows)) - starts, self.device)


_NONE = torch.arange(0)
Batch = Tensor | Packed  # of equally long samples [B, n, ...], or of any


def lengths_of(batch: Batch) -> tuple[int, ...]:
    """How many tokens each sample has; an image's class token, which it gets later, is not counted."""
    return batch.lengths if isinstance(batch, Packed) else (batch.shape[1],) * len(batch)


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches of one kind, one behind the other."""
    packed = [batch for batch in batches if isinstance(batch, Packed)]
    if not packed:
        return torch.cat([batch for batch in batches if isinstance(batch, Tensor)])
    lengths = (length for batch in packed for length in batch.lengths)
    return Packed(torch.cat([batch.rows for batch in packed]), tuple(lengths))
