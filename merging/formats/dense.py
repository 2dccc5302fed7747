"""Dense deltas: the whole change of a parameter that is not factored, such as a bias."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DenseDelta:
    """The whole change of one parameter, `finetuned - pretrained`."""

    values: Tensor  # of the parameter's shape
