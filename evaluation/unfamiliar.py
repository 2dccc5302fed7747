"""Inputs that no task covers: how well their familiarity tells them from those that one does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from mass_serve.engine import Engine
from mass_serve.evaluation.data import input_batches
from mass_serve.evaluation.inputs import files_of, items_by_name
from mass_serve.evaluation.measures import auroc
from mass_serve.model_store.progress import Progress


class DomainFigures(TypedDict):
    """How inputs of one kind that no task covers were answered, or those of all kinds."""

    images: int
    auroc: float  # of familiarity, against the evaluation's own inputs
    unrouted: float  # the share that was answered so


class Unfamiliar(TypedDict):
    """The figures of a folder of inputs that no task covers, by kind and on average."""

    average: DomainFigures  # of the domains; its `images` is the sum
    domains: dict[str, DomainFigures]


def unfamiliar(engine: Engine, root: Path, familiar: Sequence[float], progress: Progress) -> Unfamiliar:
    """Holds the familiarity of the inputs in root/<domain>/ against that of the inputs of the tasks.

    Raises EvaluationDataError for a folder without inputs, and for files that are none.
    """
    files = files_of(engine)
    items = items_by_name(root, files)
    total, done = sum(map(len, items.values())), 0
    domains = {}
    for domain, of_domain in items.items():
        values: list[float] = []
        unrouted = 0
        for inputs in input_batches(files, root, of_domain):
            answers = engine.classify_batch([files.query(one) for one in inputs]).all_answers()
            values += [answer.familiarity or 0.0 for answer in answers]
            unrouted += sum(answer.unrouted for answer in answers)
            done += len(inputs)
            progress(f"{files.noun} of no task", done, total)
        domains[domain] = DomainFigures(
            images=len(of_domain), auroc=auroc(familiar, values), unrouted=unrouted / len(of_domain)
        )
    return Unfamiliar(average=_average(domains), domains=domains)


def _average(domains: Mapping[str, DomainFigures]) -> DomainFigures:
    """The unweighted mean over domains."""
    return DomainFigures(
        images=sum(domain["images"] for domain in domains.values()),
        auroc=float(np.mean([domain["auroc"] for domain in domains.values()])),
        unrouted=float(np.mean([domain["unrouted"] for domain in domains.values()])),
    )
