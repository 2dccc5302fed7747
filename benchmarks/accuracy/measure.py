"""What one suite's store answers in every mode, without a calibration and with one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.engine.options import GIB
from mass_serve.evaluation import EvaluationData, Options, files_of
from mass_serve.evaluation.baselines import ANY_HEAD, PRETRAINED, TSV_C
from mass_serve.evaluation.calibrate import calibrate
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.methods import Method, Routed
from mass_serve.evaluation.variants import Variants
from mass_serve.merging.methods import TSV_M
from mass_serve.model_store.format.entries import HeadChoice
from mass_serve.model_store.progress import silent
from mass_serve.model_store.store import Store
from mass_serve.router import PAPER, ModeName

MODES: tuple[ModeName, ...] = ("exact", "balanced", "fast", "one_pass", PAPER)
CALIBRATED_MODES = MODES[:3]
BASELINES = (TSV_C, TSV_M.name, PRETRAINED)
HEAD_CHOICES: tuple[HeadChoice, ...] = tuple(choice for choice in get_args(HeadChoice) if choice != "max")
MOST = 120  # inputs of a task: all of the demo's
UNROUTED = 0.01  # the share of the inputs of the tasks themselves
PLACES = 4
CPU = torch.device("cpu")
# What is kept of a report's figures of a method that routes: of each task, and of the average beside these.
OF_TASKS = ("accuracy", "normalised_accuracy", "router_accuracy", "task_survival", "mean_set_size")
OF_AVERAGES = ("right_of_two", "mean_passes", "label_ece", "task_ece")


def measured(suite: Path) -> dict[str, Any]:
    """All figures of a suite's folder."""
    plain = variants_of(suite / "store", calibrated=False)
    choices = [Routed(choice, _choosing(plain, choice)) for choice in HEAD_CHOICES]
    report = _report(suite, plain, MODES, choices, BASELINES)
    with calibrated_store(suite) as store:
        entry = Store.open(str(store)).manifest.calibration
        assert entry is not None
        calibrated = _report(suite, variants_of(store, calibrated=True), CALIBRATED_MODES)
    return {
        "tasks": len(plain.loaded.routed_heads),
        "inputs": report["average"]["images"],
        "individual": _rounded(report["average"]["baselines"]["individual"]),
        "baselines": {name: _rounded(report["average"]["baselines"][name]) for name in BASELINES},
        "any_head": _rounded(report["methods"][ANY_HEAD]["average"]["accuracy"]),
        "head_choices": {
            choice: _rounded(report["methods"][choice]["average"]["accuracy"]) for choice in HEAD_CHOICES
        },
        "by_task": {
            task: {
                "inputs": figures["images"],
                **{
                    name: _rounded(value) for name, value in figures["baselines"].items() if value is not None
                },
            }
            for task, figures in report["tasks"].items()
        },
        "plain": {mode: _of_method(report["methods"][mode]) for mode in MODES},
        "calibrated": {mode: _of_method(calibrated["methods"][mode]) for mode in CALIBRATED_MODES},
        "calibrated_by": entry.images,
    }


@contextmanager
def calibrated_store(suite: Path) -> Iterator[Path]:
    """The suite's store where it is calibrated; otherwise a copy for a while, calibrated without labels."""
    store = suite / "store"
    if Store.open(str(store)).manifest.calibration is not None:
        yield store
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "store"
        shutil.copytree(store, copy)
        calibrate(str(copy), suite / "tuning", UNROUTED, CPU, silent)
        yield copy


def variants_of(store: Path, *, calibrated: bool) -> Variants:
    """The store in memory, for all modes, with its calibration or as if it had none."""
    loaded = load_store(str(store), CPU, torch.float32, MODES[0], calibrated=calibrated)
    return Variants(loaded, Execution.LOW_RANK, GIB)


def _choosing(variants: Variants, choice: HeadChoice) -> Engine:
    """An engine of the paper's mode that chooses heads in another way."""
    loaded = variants.loaded
    router = loaded.router.model_copy(update={"head_choice": choice})
    return replace(variants, loaded=replace(loaded, router=router)).engine(PAPER)


def _report(
    suite: Path,
    variants: Variants,
    modes: Sequence[ModeName],
    further: Sequence[Method] = (),
    baselines: Sequence[str] = (),
) -> Any:
    engine = variants.engine()
    methods = [*(Routed(mode, variants.engine(mode)) for mode in modes), *further]
    options = Options(methods=methods, baselines=baselines)
    return evaluate(engine, evaluation_of(suite, engine), options=options)


def evaluation_of(suite: Path, engine: Engine) -> EvaluationData:
    """The inputs of the suite that are answered."""
    labels = of_whole_inputs(engine.tasks)
    return EvaluationData(suite / "evaluation", labels, files_of(engine), most=MOST)


def _of_method(method: Any) -> dict[str, Any]:
    average = method["average"]
    interval = [_rounded(bound) for bound in average["intervals"]["accuracy"]]
    return {
        "average": {**_kept(average, (*OF_TASKS, *OF_AVERAGES)), "interval": interval},
        "tasks": {task: _kept(figures, OF_TASKS) for task, figures in method["tasks"].items()},
    }


def _kept(figures: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    return {name: _rounded(figures[name]) for name in names}


def _rounded(figure: float) -> float:
    return round(figure, PLACES)
