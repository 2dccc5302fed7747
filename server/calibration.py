"""A store calibrated on images that nobody labelled: see `router.calibration` for what follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model_store.errors import StoreError
from model_store.progress import Progress
from model_store.revisions import calibrate_store
from model_store.store import Store
from router import LEAST_IMAGES, PAPER, CalibrationFit, evidence_kinds
from server.engine import GIB, Classification, Engine, Query
from server.evaluation.images import EvaluationDataError, image_batches, images_below
from server.execution import Execution
from server.loading import LoadedStore, load_store

# With fewer images than this a task in all, routing gets worse on some suite of the README.
IMAGES_PER_TASK = 25
# The mode that knows most of an image: its answers are what the fit takes for the truth.
TEACHER = "exact"


@dataclass(frozen=True)
class Calibrated:
    """What came of a calibration."""

    store: Store
    images: int
    images_of: dict[str, float]  # by task, as the routing coefficients share them out
    unknown: tuple[str, ...]  # tasks with too few: they are judged as before
    unrouted_below: float
    mode: str  # in which so much familiarity was measured


def calibrate(
    url: str, root: Path, unrouted_share: float, device: torch.device, progress: Progress
) -> Calibrated:
    """Fits a store to the images in a folder and writes a new revision of it.

    `unrouted_share` of such images will be answered as unrouted in the store's mode: familiarity below theirs
    is believed of no task. Raises StoreError, and EvaluationDataError for images that are too few.
    """
    store = Store.open(url)
    loaded = _teacher(url, device)
    if loaded.store_revision != store.manifest.store_revision:
        raise StoreError(f"{url} was changed meanwhile: calibrate it again")
    names = [head.info.name for head in loaded.heads]
    paths = images_below(root)
    _refuse_few(root, len(paths), len(names))
    halves = _fit_halves(loaded, paths, names, progress)
    fit = halves[0] + halves[1]
    mode = TEACHER if store.manifest.router.mode == PAPER else store.manifest.router.mode
    familiarity = (
        list(_familiarity(replace(loaded, mode=mode), halves, paths, progress)) if unrouted_share else [0.0]
    )
    below = float(np.quantile(familiarity, unrouted_share, method="lower"))
    written = calibrate_store(store, asdict(fit.fit()), names, len(paths), below)
    images_of = dict(zip(names, fit.images.tolist(), strict=True))
    unknown = tuple(name for name, images in images_of.items() if images < LEAST_IMAGES)
    return Calibrated(written, len(paths), images_of, unknown, below, mode)


def _teacher(url: str, device: torch.device) -> LoadedStore:
    """The store in its most careful mode, and as if it had never been calibrated.

    Otherwise a second calibration would be fitted to the first, and the same images give another store.
    """
    loaded = load_store(url, device, torch.float32, TEACHER, calibrated=False)
    if len(loaded.heads) < 2:
        raise EvaluationDataError(f"{url} has one task: there is nothing to choose, and nothing to calibrate")
    return loaded


def _fit_halves(
    loaded: LoadedStore, paths: Sequence[Path], names: Sequence[str], progress: Progress
) -> tuple[CalibrationFit, CalibrationFit]:
    """A fit to every other image, and one to the rest."""
    engine = Engine(loaded, Execution.LOW_RANK, GIB)
    kinds = evidence_kinds(engine.config.depth)
    halves = CalibrationFit(kinds, len(names)), CalibrationFit(kinds, len(names))
    seen = 0
    for pixels in image_batches(paths, engine.preprocessing):
        answers = engine.classify_batch([Query(image) for image in pixels]).all_answers()
        evidence, of_tasks = torch.stack([_evidence(a) for a in answers]), _probabilities(answers, names)
        for half, fit in enumerate(halves):
            rows = slice((half - seen) % 2, None, 2)
            fit.add(evidence[rows], of_tasks[rows])
        seen += len(pixels)
        progress("looking at images", seen, len(paths))
    return halves


def _familiarity(
    loaded: LoadedStore, halves: Sequence[CalibrationFit], paths: Sequence[Path], progress: Progress
) -> Iterator[float]:
    """That of every image, judged by the other half: no image is more typical for having been looked at."""
    seen = 0
    for half in (0, 1):
        engine = Engine(replace(loaded, calibration=halves[1 - half].fit()), Execution.LOW_RANK, GIB)
        for pixels in image_batches(paths[half::2], engine.preprocessing):
            for answer in engine.classify_batch([Query(image) for image in pixels]).all_answers():
                yield answer.familiarity or 0.0
            seen += len(pixels)
            progress("measuring their familiarity", seen, len(paths))


def _refuse_few(root: Path, images: int, tasks: int) -> None:
    needed = IMAGES_PER_TASK * tasks
    if images < needed:
        raise EvaluationDataError(
            f"{root} holds {images} images; a store of {tasks} tasks needs at least {needed} to be calibrated"
        )


def _evidence(answer: Classification) -> Tensor:
    assert answer.evidence is not None  # the teacher has it of every image
    return answer.evidence


def _probabilities(answers: Sequence[Classification], names: Sequence[str]) -> Tensor:
    """The routing coefficients as probabilities, [B, T]."""
    table = torch.tensor([[answer.coefficients.get(name, 0.0) for name in names] for answer in answers])
    return table / table.sum(1, keepdim=True)
