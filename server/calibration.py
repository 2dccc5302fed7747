"""A store calibrated on images that nobody labelled: see `router.calibration` for what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model_store.errors import StoreError
from model_store.progress import Progress
from model_store.revisions import calibrate_store
from model_store.store import Store
from router import LEAST_IMAGES, CalibrationFit, evidence_kinds
from server.engine import GIB, Classification, Engine, Query
from server.evaluation.images import EvaluationDataError, image_batches, images_below
from server.execution import Execution
from server.loading import load_store

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


def calibrate(
    url: str, root: Path, unrouted_share: float, device: torch.device, progress: Progress
) -> Calibrated:
    """Fits a store to the images in a folder and writes a new revision of it.

    `unrouted_share` of the images will be answered as unrouted: familiarity below theirs is believed of no
    task. Raises StoreError, and EvaluationDataError for images that are too few.
    """
    store = Store.open(url)
    engine = _teacher(url, device)
    if engine.store_revision != store.manifest.store_revision:
        raise StoreError(f"{url} was changed meanwhile: calibrate it again")
    names = list(engine.tasks)
    paths = images_below(root)
    _refuse_few(root, len(paths), len(names))
    fit = CalibrationFit(evidence_kinds(engine.config.depth), len(names))
    familiarity: list[float] = []
    for pixels in image_batches(paths, engine.preprocessing):
        answers = engine.classify_batch([Query(image) for image in pixels]).all_answers()
        fit.add(torch.stack([_evidence(answer) for answer in answers]), _probabilities(answers, names))
        familiarity += [answer.familiarity or 0.0 for answer in answers]
        progress("looking at images", len(familiarity), len(paths))
    below = float(np.quantile(familiarity, unrouted_share, method="lower")) if unrouted_share else 0.0
    written = calibrate_store(store, asdict(fit.fit()), names, len(paths), below)
    images_of = dict(zip(names, fit.images.tolist(), strict=True))
    unknown = tuple(name for name, images in images_of.items() if images < LEAST_IMAGES)
    return Calibrated(written, len(paths), images_of, unknown, below)


def _teacher(url: str, device: torch.device) -> Engine:
    """The store in its most careful mode, and as if it had never been calibrated.

    Otherwise a second calibration would be fitted to the first, and the same images give another store.
    """
    loaded = load_store(url, device, torch.float32, TEACHER, calibrated=False)
    if len(loaded.heads) < 2:
        raise EvaluationDataError(f"{url} has one task: there is nothing to choose, and nothing to calibrate")
    return Engine(loaded, Execution.LOW_RANK, GIB)


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
