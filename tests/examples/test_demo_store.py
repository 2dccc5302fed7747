"""The shipped demo: what it gets right on the held-out images, as `mass-serve eval` measures it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mass_serve.engine import Engine
from mass_serve.evaluation import EvaluationData, baselines, files_of
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.evaluate import Report, evaluate
from mass_serve.model_store.store import Store

ROOT = Path(__file__).parents[2]
DEMO_STORE = ROOT / "server" / "demo_store"


@pytest.fixture(scope="module")
def report() -> Report:
    engine = Engine.load(str(DEMO_STORE))
    labels = of_whole_inputs(engine.tasks)
    with pytest.MonkeyPatch.context() as patch:
        # Nothing here is said of task arithmetic, and searching its coefficient takes most of an evaluation.
        patch.setattr(baselines, "TASK_ARITHMETIC_COEFFICIENTS", (0.3,))
        return evaluate(engine, EvaluationData(ROOT / "examples" / "evaluation", labels, files_of(engine)))


def test_individual_models_are_good(report: Report) -> None:
    individual = report["average"]["baselines"]["individual"]
    assert individual is not None
    assert individual >= 0.90


def test_the_blocks_keep_nearly_all_with_the_task_known(report: Report) -> None:
    baselines = report["average"]["baselines"]
    assert baselines["individual"] is not None
    assert baselines["tsv_c"] is not None
    assert baselines["tsv_c"] >= 0.98 * baselines["individual"]


def test_mass_keeps_most_with_the_task_unknown(report: Report) -> None:
    average = report["average"]
    assert average["normalised_accuracy"] is not None
    assert average["normalised_accuracy"] >= 0.93
    assert average["router_accuracy"] >= 0.93
    assert report["tasks"].keys() == {task.name for task in Store.open(DEMO_STORE).manifest.tasks}


def test_the_store_is_whole_and_small() -> None:
    assert Store.open(DEMO_STORE).verify() == []
    assert sum(path.stat().st_size for path in DEMO_STORE.rglob("*") if path.is_file()) <= 10_000_000
