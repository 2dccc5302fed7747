"""A store calibrated on inputs without labels: see `router.calibration` for what follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mass_serve.engine import Classification, Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.known_mode import known_mode
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_store
from mass_serve.engine.measuring import unknown_measures
from mass_serve.engine.options import GIB
from mass_serve.evaluation.calibration_inputs import CalibrationInputs
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.fitting import empty_fit, of_the_others, together
from mass_serve.evaluation.inputs import files_of
from mass_serve.evaluation.known_tasks import Observer, fitted
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.calibration import COVARIANCE, IMAGES, MEANS, OWNER, WEIGHTS
from mass_serve.model_store.progress import Progress
from mass_serve.model_store.revisions import calibrate_store
from mass_serve.model_store.store import Store
from mass_serve.router import LEAST_IMAGES, PAPER, Calibration, ModeName

# With fewer inputs than this a task in all, routing gets worse on some suite: `mass-serve calibrate` and
# `mass-serve eval` on the suites that are named at `router.discriminant.WEIGHT`.
INPUTS_PER_TASK = 25
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
    tasks_known: bool
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
    *,
    task_folders: bool = False,
    labelled: bool = False,
) -> Calibrated:
    """Fits a store to the inputs in a folder and writes a new revision of it.

    With `task_folders` the names in the folder are tasks, and no answer is taken for the truth of which task
    an input is of; with `labelled` those of the folders within are classes, and none of which class it is.
    `unrouted_share` of such inputs will be answered as unrouted in the store's mode: familiarity below theirs
    is believed of no task. Raises StoreError, and EvaluationDataError for inputs that are too few.
    """
    store = Store.open(url, trusted_keys)
    served = known_mode(store.manifest.router)
    loaded = _teacher(url, device, trusted_keys)
    if loaded.store_revision != store.manifest.store_revision:
        raise StoreError(f"{url} was changed meanwhile: calibrate it again")
    names = [head.entry.name for head in loaded.routed_heads]
    files = files_of(Engine(loaded, Execution.LOW_RANK, GIB))
    if labelled:
        routed = {head.entry.name: head.entry for head in loaded.routed_heads}
        inputs = CalibrationInputs.of_labelled(root, files, of_whole_inputs(routed))
        calibration, others = _of_known_tasks(loaded, inputs, progress)
    elif task_folders:
        inputs = CalibrationInputs.of_task_folders(root, files, names)
        calibration, others = _of_known_tasks(loaded, inputs, progress)
    else:
        inputs = CalibrationInputs.of_unknown_tasks(root, files)
        _refuse_few(inputs, len(names))
        calibration, others = _of_unknown_tasks(loaded, inputs, progress)
    mode = TEACHER if served == PAPER else served
    below = 0.0
    if unrouted_share:
        familiarity = list(_familiarity(replace(loaded, mode=mode), inputs, others, progress))
        below = float(np.quantile(familiarity, unrouted_share, method="lower"))
    inputs_of = dict(zip(names, calibration.task_images.tolist(), strict=True))
    written = calibrate_store(
        store, _tensors(calibration), names, len(inputs.items), below, unknown_measures, progress
    )
    known = task_folders or labelled
    least = 1 if known else LEAST_IMAGES
    unknown = tuple(name for name, count in inputs_of.items() if count < least)
    return Calibrated(written, len(inputs.items), inputs_of, known, files.noun, unknown, below, mode)


def _tensors(calibration: Calibration) -> dict[str, Tensor]:
    """The tensors of a calibration file."""
    tensors = {
        MEANS: calibration.means,
        COVARIANCE: calibration.covariance,
        IMAGES: calibration.images,
        OWNER: calibration.owner,
    }
    return tensors if calibration.weights is None else tensors | {WEIGHTS: calibration.weights}


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
    loaded = load_store(
        url, device, torch.float32, TEACHER, without, calibrated=False, trusted_keys=trusted_keys
    )
    return replace(loaded, narrows=False)  # a calibration is fitted to the evidence of all tasks


def _of_unknown_tasks(
    loaded: LoadedStore, inputs: CalibrationInputs, progress: Progress
) -> tuple[Calibration, list[Calibration]]:
    """The calibration by all inputs and, for each part of them, that by the other parts.

    The answers of a store that is not calibrated are taken for the truth.
    """
    engine = Engine(loaded, Execution.LOW_RANK, GIB)
    names = [head.entry.name for head in loaded.routed_heads]
    fits = []
    for batches in inputs.batches("collecting evidence", progress):
        fit = empty_fit(loaded)
        for batch in batches:
            answers = engine.classify_batch([inputs.files.query(one) for one in batch.inputs]).all_answers()
            fit.add(
                torch.stack([_kinds(answer) for answer in answers]),
                torch.tensor([names.index(answer.task) for answer in answers]),
                torch.tensor([int(answer.logits.argmax()) for answer in answers]),
                torch.tensor([_probability(answer) for answer in answers]),
            )
        fits.append(fit)
    return together(fits).fit(), [fit.fit() for fit in of_the_others(fits)]


def _of_known_tasks(
    loaded: LoadedStore, inputs: CalibrationInputs, progress: Progress
) -> tuple[Calibration, list[Calibration]]:
    """The same, where the inputs' tasks are known."""
    observer = Observer(loaded)
    parts = [
        [observer.observe(batch) for batch in batches]
        for batches in inputs.batches("collecting evidence", progress)
    ]
    return fitted(loaded, parts)


def _familiarity(
    loaded: LoadedStore, inputs: CalibrationInputs, others: Sequence[Calibration], progress: Progress
) -> Iterator[float]:
    """Yields the familiarity of every input by the calibration that the other parts tell.

    By one that it has a part in, an input would be more typical than new ones are.
    """
    parts = inputs.batches("measuring their familiarity", progress)
    for calibration, batches in zip(others, parts, strict=True):
        engine = Engine(replace(loaded, calibration=calibration), Execution.LOW_RANK, GIB)
        for batch in batches:
            answers = engine.classify_batch([inputs.files.query(one) for one in batch.inputs]).all_answers()
            yield from (answer.familiarity or 0.0 for answer in answers)


def _refuse_few(inputs: CalibrationInputs, tasks: int) -> None:
    """Raises EvaluationDataError where there are too few inputs for so many tasks."""
    needed = INPUTS_PER_TASK * tasks
    if len(inputs.items) < needed:
        raise EvaluationDataError(
            f"{inputs.root} holds {len(inputs.items)} {inputs.files.noun}; a store of {tasks} tasks needs at"
            f" least {needed} to be calibrated, or some in a folder for each task and --task-folders"
        )


def _kinds(answer: Classification) -> Tensor:
    """Returns what the tasks were judged by for an input, [K, T]."""
    assert answer.evidence is not None  # the teacher has it of every input
    return answer.evidence.kinds


def _probability(answer: Classification) -> float:
    """The routing coefficient of the task that answers, among those of the tasks that were tried."""
    return answer.coefficients[answer.task] / sum(answer.coefficients.values())
