"""Encoder weights that keep what enters each linear of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mass_serve.backbone import DenseWeights


class EnteredRows(DenseWeights):
    """The weights of one pass, which keep the rows [N, d_in] that enter each linear.

    A pass asks for the weights of every share of its samples, from several threads: what entered is kept
    by the share, and is whole and in the order of the samples when the pass has ended.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__(parameters)
        self._shares: dict[int, _Share] = {}

    def of_samples(self, samples: slice) -> DenseWeights:
        share = self._shares[samples.start] = _Share(self.parameters)
        return share

    def entered(self, linear: str) -> Tensor:
        """The rows of all samples that entered a linear."""
        return torch.cat([self._shares[start].entered[linear] for start in sorted(self._shares)])

    def linears(self) -> list[str]:
        """The linears that a pass came through."""
        return list(next(iter(self._shares.values())).entered)


class _Share(DenseWeights):
    """The weights of some of the samples."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__(parameters)
        self.entered: dict[str, Tensor] = {}

    def linear(self, name: str, x: Tensor, **options: Any) -> Tensor:
        self.entered[name] = x.flatten(0, 1)
        return super().linear(name, x, **options)
