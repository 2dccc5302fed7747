"""A store calibrated on inputs that nobody labelled: see `router.calibration` for what follows from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mass_serve.engine import Classification, Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import LoadedStore, known_mode, load_store
from mass_serve.engine.options import GIB
from mass_serve.evaluation.data import input_batches
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs import InputFiles, Item, files_of
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.calibration import COVARIANCE, IMAGES, MEANS, OWNER
from mass_serve.model_store.progress import Progress
from mass_serve.model_store.revisions import calibrate_store
from mass_serve.model_store.store import Store
from mass_serve.router import LEAST_IMAGES, PAPER, Calibration, CalibrationFit, ModeName, evidence_kinds

# With fewer inputs than this a task in all, routing gets worse on some suite: `mass-serve calibrate` and
# `mass-serve eval` on the suites that are named at `router.discriminant.WEIGHT`.
INPUTS_PER_TASK = 25
# The inputs are judged in so many parts, each by a fit to the others, which is nearly that of them all.
FOLDS = 10
# The mode that knows most of an input: its answers are what the fit takes for the truth.
TEACHER: ModeName = "exact"


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration."""

    store: Store
    inputs: int
    # By task: how many of the inputs are its own. One that two tasks were tried with counts as far as its
    # answer is sure.
    inputs_of: dict[str, float]
    noun: str  # what the inputs are
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
    """Fits a store to the inputs in a folder and writes a new revision of it.

    `unrouted_share` of such inputs will be answered as unrouted in the store's mode: familiarity below theirs
    is believed of no task. Raises StoreError, and EvaluationDataError for inputs that are too few.
    """
    store = Store.open(url, trusted_keys)
    served = known_mode(store.manifest.router)
    loaded = _teacher(url, device, trusted_keys)
    if loaded.store_revision != store.manifest.store_revision:
        raise StoreError(f"{url} was changed meanwhile: calibrate it again")
    names = [head.entry.name for head in loaded.routed_heads]
    engine = Engine(loaded, Execution.LOW_RANK, GIB)
    unlabelled = Unlabelled.below(root, files_of(engine))
    _refuse_few(unlabelled, len(names))
    fits = _fit(engine, loaded, unlabelled, progress)
    mode = TEACHER if served == PAPER else served
    below = 0.0
    if unrouted_share:
        familiarity = list(_familiarity(replace(loaded, mode=mode), unlabelled, fits, progress))
        below = float(np.quantile(familiarity, unrouted_share, method="lower"))
    calibration = _together(fits).fit()
    inputs_of = dict(zip(names, calibration.task_images.tolist(), strict=True))
    written = calibrate_store(store, _tensors(calibration), names, unlabelled.count, below)
    unknown = tuple(name for name, inputs in inputs_of.items() if inputs < LEAST_IMAGES)
    return Calibrated(written, unlabelled.count, inputs_of, unlabelled.files.noun, unknown, below, mode)


def _tensors(calibration: Calibration) -> dict[str, Tensor]:
    """The tensors of a calibration file."""
    return {
        MEANS: calibration.means,
        COVARIANCE: calibration.covariance,
        IMAGES: calibration.images,
        OWNER: calibration.owner,
    }


def _teacher(url: str, device: torch.device, trusted_keys: Path | None = None) -> LoadedStore:
    """The routed tasks of a store in its most careful mode, and as if it had never been calibrated.

    Otherwise a second calibration would be fitted to the first, and the same inputs give another store.
    """
    manifest = Store.open(url, trusted_keys).manifest
    if (routed := len(manifest.routed_tasks)) < 2:
        tasks = "one task" if routed else "no task"
        raise EvaluationDataError(
            f"{url} has {tasks} that inputs are routed to: there is nothing to choose, and nothing to"
            " calibrate"
        )
    without = manifest.token_tasks
    return load_store(
        url, device, torch.float32, TEACHER, without, calibrated=False, trusted_keys=trusted_keys
    )


@dataclass(frozen=True)
class Unlabelled:
    """The inputs that a store is calibrated on, in FOLDS parts."""

    root: Path
    files: InputFiles
    folds: Sequence[Sequence[Item]]

    @classmethod
    def below(cls, place: Path, files: InputFiles) -> Unlabelled:
        """Every input in a folder or file, in parts that are drawn at random but always alike.

        A listing may have tasks in turn.
        """
        root, within = (place.parent, place.name) if place.is_file() else (place, "")
        items = files.below(root, within)
        order = np.random.default_rng(0).permutation(len(items))
        return cls(root, files, [[items[number] for number in order[fold::FOLDS]] for fold in range(FOLDS)])

    @property
    def count(self) -> int:
        """The number of inputs."""
        return sum(map(len, self.folds))

    def answers(
        self, engine: Engine, fold: Sequence[Item], count: Callable[[int], None]
    ) -> Iterator[list[Classification]]:
        """Yields the answers to one part, a batch at a time. `count` is told the size of each batch."""
        for inputs in input_batches(self.files, self.root, fold):
            yield engine.classify_batch([self.files.query(one) for one in inputs]).all_answers()
            count(len(inputs))


def _fit(
    engine: Engine, loaded: LoadedStore, unlabelled: Unlabelled, progress: Progress
) -> list[CalibrationFit]:
    """A fit to each part of the inputs."""
    names = [head.entry.name for head in loaded.routed_heads]
    classes = [len(head.entry.labels) for head in loaded.routed_heads]
    kinds = evidence_kinds(len(loaded.early_blocks))
    count = _counter("collecting evidence", unlabelled.count, progress)
    fits = []
    for fold in unlabelled.folds:
        fit = CalibrationFit(kinds, classes)
        for answers in unlabelled.answers(engine, fold, count):
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
    unlabelled: Unlabelled,
    fits: Sequence[CalibrationFit],
    progress: Progress,
) -> Iterator[float]:
    """Yields the familiarity of every input by a fit to the other parts.

    By a fit that it has a part in, an input would be more typical than new ones are.
    """
    count = _counter("measuring their familiarity", unlabelled.count, progress)
    for number, fold in enumerate(unlabelled.folds):
        others = _together([*fits[:number], *fits[number + 1 :]])
        engine = Engine(replace(loaded, calibration=others.fit()), Execution.LOW_RANK, GIB)
        for answers in unlabelled.answers(engine, fold, count):
            yield from (answer.familiarity or 0.0 for answer in answers)


def _together(fits: Sequence[CalibrationFit]) -> CalibrationFit:
    """One fit to the inputs of all."""
    return functools.reduce(CalibrationFit.__add__, fits)


def _counter(stage: str, total: int, progress: Progress) -> Callable[[int], None]:
    """Returns a function that is told how many more inputs are done, and reports the sum as progress."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, total)

    return count


def _refuse_few(unlabelled: Unlabelled, tasks: int) -> None:
    """Raises EvaluationDataError where there are too few inputs for so many tasks."""
    needed = INPUTS_PER_TASK * tasks
    if unlabelled.count < needed:
        raise EvaluationDataError(
            f"{unlabelled.root} holds {unlabelled.count} {unlabelled.files.noun}; a store of {tasks} tasks"
            f" needs at least {needed} to be calibrated"
        )


def _evidence(answer: Classification) -> Tensor:
    """Returns what the tasks were judged by for an input, [K, T]."""
    assert answer.evidence is not None  # the teacher has it of every input
    return answer.evidence


def _probability(answer: Classification) -> float:
    """The routing coefficient of the task that answers, among those of the tasks that were tried."""
    return answer.coefficients[answer.task] / sum(answer.coefficients.values())
