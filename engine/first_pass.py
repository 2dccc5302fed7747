"""The weights that first passes read: those of the store, or their linears in whole numbers of 8 bits.

Routing needs less than classifying: what int8 rounds away costs a first pass hardly anything that its router
would miss (docs/accuracy.md), and second passes, which answer, stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mass_serve.backbone import FormedParameters, Parameters, forms_of, nbytes_of, with_quantised_linears
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.options import FirstPassDtype
from mass_serve.kernels import Weight
from mass_serve.kernels.backend import backend_for


@dataclass(frozen=True)
class FirstPassWeights:
    """What first passes read, and what it was made of."""

    parameters: Parameters
    nbytes: int  # beyond the pretrained weights
    source: Mapping[str, Weight]  # the store's own, by name
    dtype: FirstPassDtype


def check_first_pass_dtype(device: torch.device, dtype: FirstPassDtype) -> None:
    """Raises ValueError for a dtype of first passes that the device does not compute in."""
    if dtype == "int8" and backend_for(device) == "fused":
        raise ValueError(
            f"first_pass_dtype: int8 is computed on a CPU, and the device is {device.type}: use same"
        )


def first_pass_weights(
    loaded: LoadedStore, dtype: FirstPassDtype, previous: FirstPassWeights | None = None
) -> FirstPassWeights:
    """The weights of a store's first passes, shared with `previous` where they are of the same ones.

    With int8 they are beside the store's own in memory. Raises ValueError where the device has no int8.
    """
    check_first_pass_dtype(loaded.device, dtype)
    source = forms_of(loaded.first_pass)
    if dtype == "same":
        return FirstPassWeights(loaded.first_pass, loaded.first_pass_nbytes, source, dtype)
    if previous is not None and previous.dtype == dtype and _are_same(previous.source, source):
        parameters = previous.parameters
    else:
        parameters = with_quantised_linears(loaded.first_pass, loaded.architecture)
    own = {name: form for name, form in forms_of(parameters).items() if form is not source[name]}
    nbytes = loaded.first_pass_nbytes + nbytes_of(FormedParameters(own))
    return FirstPassWeights(parameters, nbytes, source, dtype)


def _are_same(mine: Mapping[str, Weight], theirs: Mapping[str, Weight]) -> bool:
    """Tells whether both have the same weights in memory."""
    return mine.keys() == theirs.keys() and all(mine[name] is theirs[name] for name in mine)
