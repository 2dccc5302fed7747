"""A store calibrated on images that nobody labelled: see `router.calibration` for what follows from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mass_serve.engine import Classification, Engine, Query
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import LoadedStore, known_mode, load_store
from mass_serve.engine.options import GIB
from mass_serve.evaluation.images import EvaluationDataError, image_batches, images_below
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.calibration import COVARIANCE, IMAGES, MEANS, OWNER
from mass_serve.model_store.progress import Progress
from mass_serve.model_store.revisions import calibrate_store
from mass_serve.model_store.store import Store
from mass_serve.router import LEAST_IMAGES, PAPER, Calibration, CalibrationFit, ModeName, evidence_kinds

# With fewer images than this a task in all, routing gets worse on some suite: `mass-serve calibrate` and
# `mass-serve eval` on the suites that are named at `router.discriminant.WEIGHT`.
IMAGES_PER_TASK = 25
# The images are judged in so many parts, each by a fit to the others, which is nearly that of them all.
FOLDS = 10
# The mode that knows most of an image: its answers are what the fit takes for the truth.
TEACHER: ModeName = "exact"


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration."""

    store: Store
    images: int
    # By task: how many of the images are its own. One that two tasks were tried with counts as far as its
    # answer is sure.
    images_of: dict[str, float]
    unknown: tuple[str, ...]  # tasks with too few: they are judged as before
    unrouted_below: float
    mode: ModeName  # in which so much familiarity was measured


def calibrate(
    url: str,
    root: Path,
    unrouted_share: float,
    device: torch.device,
    progress: Progress,
    trusted_keys: Path | None = None,
) -> Calibrated:
    """Fits a store to the images in a folder and writes a new revision of it.

    `unrouted_share` of such images will be answered as unrouted in the store's mode: familiarity below theirs
    is believed of no task. Raises StoreError, and EvaluationDataError for images that are too few.
    """
    store = Store.open(url, trusted_keys)
    served = known_mode(store.manifest.router)
    if store.manifest.backbone.reads_text:
        raise StoreError(f"{url} reads texts, and a store is calibrated by images")
    loaded = _teacher(url, device, trusted_keys)
    if loaded.store_revision != store.manifest.store_revision:
        raise StoreError(f"{url} was changed meanwhile: calibrate it again")
    names = [head.entry.name for head in loaded.heads]
    paths = images_below(root)
    _refuse_few(root, len(paths), len(names))
    folds = _folded(paths)
    fits = _fit(loaded, folds, progress)
    mode = TEACHER if served == PAPER else served
    below = 0.0
    if unrouted_share:
        familiarity = list(_familiarity(replace(loaded, mode=mode), folds, fits, progress))
        below = float(np.quantile(familiarity, unrouted_share, method="lower"))
    calibration = _together(fits).fit()
    images_of = dict(zip(names, calibration.task_images.tolist(), strict=True))
    written = calibrate_store(store, _tensors(calibration), names, len(paths), below)
    unknown = tuple(name for name, images in images_of.items() if images < LEAST_IMAGES)
    return Calibrated(written, len(paths), images_of, unknown, below, mode)


def _tensors(calibration: Calibration) -> dict[str, Tensor]:
    """The tensors of a calibration file."""
    return {
        MEANS: calibration.means,
        COVARIANCE: calibration.covariance,
        IMAGES: calibration.images,
        OWNER: calibration.owner,
    }


def _teacher(url: str, device: torch.device, trusted_keys: Path | None = None) -> LoadedStore:
    """The store in its most careful mode, and as if it had never been calibrated.

    Otherwise a second calibration would be fitted to the first, and the same images give another store.
    """
    loaded = load_store(url, device, torch.float32, TEACHER, calibrated=False, trusted_keys=trusted_keys)
    if len(loaded.heads) < 2:
        raise EvaluationDataError(f"{url} has one task: there is nothing to choose, and nothing to calibrate")
    return loaded


def _folded(paths: Sequence[Path]) -> list[list[Path]]:
    """The images in FOLDS parts, drawn at random but always alike: a listing may have tasks in turn."""
    order = np.random.default_rng(0).permutation(len(paths))
    return [[paths[number] for number in order[fold::FOLDS]] for fold in range(FOLDS)]


def _fit(loaded: LoadedStore, folds: Sequence[Sequence[Path]], progress: Progress) -> list[CalibrationFit]:
    """A fit to each part of the images."""
    engine = Engine(loaded, Execution.LOW_RANK, GIB)
    names = [head.entry.name for head in loaded.heads]
    classes = [len(head.entry.labels) for head in loaded.heads]
    kinds = evidence_kinds(len(loaded.early_blocks))
    count = _counter("collecting evidence", folds, progress)
    fits = []
    for paths in folds:
        fit = CalibrationFit(kinds, classes)
        for answers in _answers(engine, paths, count):
            fit.add(
                torch.stack([_evidence(answer) for answer in answers]),
                torch.tensor([names.index(answer.task) for answer in answers]),
                torch.tensor([int(answer.logits.argmax()) for answer in answers]),
                torch.tensor([_probability(answer) for answer in answers]),
            )
        fits.append(fit)
    return fits


def _familiarity(
    loaded: LoadedStore,
    folds: Sequence[Sequence[Path]],
    fits: Sequence[CalibrationFit],
    progress: Progress,
) -> Iterator[float]:
    """Yields the familiarity of every image by a fit to the other parts.

    By a fit that it has a part in, an image would be more typical than new ones are.
    """
    count = _counter("measuring their familiarity", folds, progress)
    for fold, paths in enumerate(folds):
        others = _together([*fits[:fold], *fits[fold + 1 :]])
        engine = Engine(replace(loaded, calibration=others.fit()), Execution.LOW_RANK, GIB)
        for answers in _answers(engine, paths, count):
            yield from (answer.familiarity or 0.0 for answer in answers)


def _together(fits: Sequence[CalibrationFit]) -> CalibrationFit:
    """One fit to the images of all."""
    return functools.reduce(CalibrationFit.__add__, fits)


def _answers(
    engine: Engine, paths: Sequence[Path], count: Callable[[int], None]
) -> Iterator[list[Classification]]:
    """Yields the answers to the images, a batch at a time. `count` is told the size of each batch."""
    for pixels in image_batches(paths, engine.preprocessing):
        yield engine.classify_batch([Query(image) for image in pixels]).all_answers()
        count(len(pixels))


def _counter(stage: str, folds: Sequence[Sequence[Path]], progress: Progress) -> Callable[[int], None]:
    """Returns a function that is told how many more images are done, and reports the sum as progress."""
    done, total = 0, sum(map(len, folds))

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, total)

    return count


def _refuse_few(root: Path, images: int, tasks: int) -> None:
    """Raises EvaluationDataError where there are too few images for so many tasks."""
    needed = IMAGES_PER_TASK * tasks
    if images < needed:
        raise EvaluationDataError(
            f"{root} holds {images} images; a store of {tasks} tasks needs at least {needed} to be calibrated"
        )


def _evidence(answer: Classification) -> Tensor:
    """Returns what the tasks were judged by for an image, [K, T]."""
    assert answer.evidence is not None  # the teacher has it of every image
    return answer.evidence


def _probability(answer: Classification) -> float:
    """The routing coefficient of the task that answers, among those of the tasks that were tried."""
    return answer.coefficients[answer.task] / sum(answer.coefficients.values())
