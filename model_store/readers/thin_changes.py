"""What an adapter changes of a parameter, as thin factors, where all that is done to it leaves it thin."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mass_serve.merging import ThinDelta
from mass_serve.model_store.format.tensor_files import LARGEST_NUMBER
from mass_serve.model_store.readers.adapters import AdaptedWeights
from mass_serve.model_store.readers.changes import LayerScale
from mass_serve.model_store.readers.family import Source


def thin_change(
    source: Source, keys: Mapping[str, str], weights: AdaptedWeights, shape: tuple[int, int]
) -> ThinDelta | None:
    """Reads the change, of a `shape` [d_out, d_in], of a parameter that lies in the files as stacked parts.

    `keys` are the parts' names in the files by what the family calls them. None where the change of a part is
    not thin, where more is done to them than to scale rows, and for numbers that nobody can compute with.
    Whatever is done to tensors that the adapter leaves alone, it changes nothing of what they make.
    """
    if not any(weights.changes(keys[key]) for key in source.needed):
        return ThinDelta.none(shape)
    parts = [weights.thin_change(keys[key]) for key in source.keys]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    thin = ThinDelta.stacked(known)
    if source.transposed:
        thin = ThinDelta(thin.right.T, thin.left.T)
    if source.change is not None:
        if not isinstance(source.change, LayerScale):
            return None
        key = keys[source.change.key]
        gamma = weights.read(key)
        if not torch.equal(gamma, weights.base.read(key)):
            return None
        thin = ThinDelta(gamma.double()[:, None] * thin.left, thin.right)
    return thin if thin.norm() <= LARGEST_NUMBER else None
