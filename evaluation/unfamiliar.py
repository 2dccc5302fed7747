"""Images that no task covers: how well their familiarity tells them from those that one does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from mass_serve.engine import Engine, Query
from mass_serve.evaluation.images import EvaluationDataError, image_batches, images_below
from mass_serve.evaluation.measures import auroc
from mass_serve.model_store.progress import Progress


class DomainFigures(TypedDict):
    """How images of one kind that no task covers were answered, or those of all kinds."""

    images: int
    auroc: float  # of familiarity, against the evaluation's own images
    unrouted: float  # the share that was answered so


class Unfamiliar(TypedDict):
    """The figures of a folder of images that no task covers, by kind and on average."""

    average: DomainFigures  # of the domains; its `images` is the sum
    domains: dict[str, DomainFigures]


def unfamiliar(engine: Engine, root: Path, familiar: Sequence[float], progress: Progress) -> Unfamiliar:
    """Holds the familiarity of the images in root/<domain>/ against that of the images of the tasks.

    Raises EvaluationDataError for a folder without images, and for files that are none.
    """
    files = _images_by_domain(root)
    total, done = sum(map(len, files.values())), 0
    domains = {}
    for domain, paths in files.items():
        values: list[float] = []
        unrouted = 0
        for pixels in image_batches(paths, engine.preprocessing):
            answers = engine.classify_batch([Query(image) for image in pixels]).all_answers()
            values += [answer.familiarity or 0.0 for answer in answers]
            unrouted += sum(answer.unrouted for answer in answers)
            done += len(pixels)
            progress("images of no task", done, total)
        domains[domain] = DomainFigures(
            images=len(paths), auroc=auroc(familiar, values), unrouted=unrouted / len(paths)
        )
    return Unfamiliar(average=_average(domains), domains=domains)


def _average(domains: Mapping[str, DomainFigures]) -> DomainFigures:
    """The unweighted mean over domains."""
    return DomainFigures(
        images=sum(domain["images"] for domain in domains.values()),
        auroc=float(np.mean([domain["auroc"] for domain in domains.values()])),
        unrouted=float(np.mean([domain["unrouted"] for domain in domains.values()])),
    )


def _images_by_domain(root: Path) -> dict[str, list[Path]]:
    """The image files of every folder in `root`. Raises EvaluationDataError for a folder without any."""
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    found = {folder.name: images_below(folder) for folder in folders}
    if not found or not all(found.values()):
        raise EvaluationDataError(
            f"{root} holds no images, or a folder without; expected {root}/<domain>/*.png"
        )
    return found
