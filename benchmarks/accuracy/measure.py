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

from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import LoadedStore, load_store
from mass_serve.engine.options import GIB
from mass_serve.evaluation import EvaluationData, Options, evaluate, files_of
from mass_serve.evaluation.baselines import ANY_HEAD, PRETRAINED, TSV_C
from mass_serve.evaluation.calibrate import calibrate
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.methods import Method, Routed
from mass_serve.evaluation.variants import Variants
from mass_serve.merging.methods import TSV_M
from mass_serve.model_store.format.entries import HeadChoice
from mass_serve.model_store.progress import silent
from mass_serve.model_store.store import Store
from mass_serve.router import PAPER, ModeName

# The first is the one by which it is measured whether what no task covers can be told.
MODES: tuple[ModeName, ...] = ("exact", "balanced", "fast", "one_pass", PAPER)
CALIBRATED_MODES = MODES[:3]
BASELINES = (TSV_C, TSV_M.name, PRETRAINED)
HEAD_CHOICES: tuple[HeadChoice, ...] = tuple(choice for choice in get_args(HeadChoice) if choice != "max")
UNROUTED = 0.01  # the share of the inputs of the tasks themselves
PLACES = 4
CPU = torch.device("cpu")
# What is kept of a report's figures of a method that routes.
KEPT = (
    *("accuracy", "normalised_accuracy", "right_of_two", "router_accuracy", "task_survival"),
    *("mean_set_size", "mean_passes", "label_ece", "task_ece"),
)


def measured(suite: Path) -> dict[str, Any]:
    """All figures of a suite's folder."""
    plain = Variants(_loaded(suite / "store", calibrated=False), Execution.LOW_RANK, GIB)
    choices = [Routed(choice, _choosing(plain, choice)) for choice in HEAD_CHOICES]
    report = _report(suite, plain, MODES, choices, BASELINES)
    with calibrated_store(suite) as store:
        after = Variants(_loaded(store, calibrated=True), Execution.LOW_RANK, GIB)
        entry = Store.open(str(store)).manifest.calibration
        assert entry is not None
        calibrated = _report(suite, after, CALIBRATED_MODES)
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
                **{name: _rounded(value) for name, value in figures["baselines"].items() if value},
            }
            for task, figures in report["tasks"].items()
        },
        "plain": _routed(report, MODES),
        "calibrated": {"inputs": entry.images, **_routed(calibrated, CALIBRATED_MODES)},
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


def _loaded(store: Path, *, calibrated: bool) -> LoadedStore:
    return load_store(str(store), CPU, torch.float32, MODES[0], calibrated=calibrated)


def _choosing(variants: Variants, choice: HeadChoice) -> Any:
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
    labels = of_whole_inputs(engine.tasks)
    options = Options(
        methods=[*(Routed(mode, variants.engine(mode)) for mode in modes), *further],
        baselines=baselines,
        unfamiliar=suite / "ood",
    )
    return evaluate(engine, EvaluationData(suite / "evaluation", labels, files_of(engine)), options=options)


def _routed(report: Any, modes: Sequence[str]) -> dict[str, Any]:
    """The figures of modes, and of what no task covers."""
    told = report["unfamiliar"]
    return {
        "modes": {mode: _of_method(report["methods"][mode]) for mode in modes},
        "unfamiliar": {
            "average": _every_rounded(told["average"]),
            "domains": {name: _every_rounded(one) for name, one in told["domains"].items()},
        },
    }


def _of_method(method: Any) -> dict[str, Any]:
    average = method["average"]
    return {
        "average": _of_inputs(average)
        | {"interval": [_rounded(bound) for bound in average["intervals"]["accuracy"]]},
        "tasks": {task: _of_inputs(figures) for task, figures in method["tasks"].items()},
    }


def _of_inputs(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: _rounded(figures[name]) for name in KEPT}


def _every_rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: _rounded(value) for name, value in figures.items()}


def _rounded(figure: float) -> float:
    return round(figure, PLACES)
