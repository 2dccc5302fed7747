"""Calibrations fitted to inputs in parts: by all of them and, for each part, by the others."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from mass_serve.engine.loaded_store import LoadedStore, early_linears
from mass_serve.router import CalibrationFit, evidence_kinds


def empty_fit(loaded: LoadedStore) -> CalibrationFit:
    """A fit for the routed tasks of a store, to no input yet."""
    classes = [len(head.entry.labels) for head in loaded.routed_heads]
    return CalibrationFit(evidence_kinds(len(early_linears(loaded.architecture))), classes)


def together(fits: Sequence[CalibrationFit]) -> CalibrationFit:
    """One fit to the inputs of all."""
    return functools.reduce(CalibrationFit.__add__, fits)


def of_the_others(fits: Sequence[CalibrationFit]) -> Iterator[CalibrationFit]:
    """Yields, for each part of the inputs, one fit to the other parts."""
    for number in range(len(fits)):
        yield together([*fits[:number], *fits[number + 1 :]])
