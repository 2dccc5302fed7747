"""What is measured of other places to judge early evidence at, on a few of the demo's images."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks import early_layers
from mass_serve.backbone import passes_for
from mass_serve.engine import Engine
from mass_serve.engine.drawn_inputs import drawn_inputs
from mass_serve.engine.execution import Execution
from mass_serve.engine.exits import measured_prices
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_store
from mass_serve.engine.options import GIB
from mass_serve.router import FARTHEST_RESUMED, ModeName, early_stop
from tests.examples.test_demo_store import DEMO_STORE, ROOT

pytestmark = pytest.mark.slow

LABELS = 3
RESUMING: tuple[ModeName, ...] = ("one_pass", "fast")


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one suite: the demo's store and, of every task, as many images of each of a few labels."""
    suite = tmp_path_factory.mktemp("suites") / "demo"
    for task in (ROOT / "examples" / "evaluation").iterdir():
        for label in sorted(task.iterdir())[:LABELS]:
            copied = suite / "evaluation" / task.name / label.name
            copied.mkdir(parents=True)
            for picture in sorted(label.iterdir())[:2]:
                shutil.copy(picture, copied)
    shutil.copytree(DEMO_STORE, suite / "store")
    return suite.parent


@pytest.fixture(scope="module")
def figures(suites: Path) -> dict[str, Any]:
    """What the command writes."""
    written = suites.parent / "early_layers.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["early_layers", str(suites), "--json", str(written)])
        early_layers.main()
    found: dict[str, Any] = json.loads(written.read_text())["demo"]
    return found


def loaded_in(mode: ModeName) -> LoadedStore:
    return load_store(str(DEMO_STORE), torch.device("cpu"), torch.float32, mode, calibrated=False)


def test_a_third_is_what_is_served(suites: Path, figures: dict[str, Any]) -> None:
    third = figures["stops"]["third"]
    for mode in RESUMING:
        engine = Engine(loaded_in(mode), Execution.LOW_RANK, GIB)
        pictures = sorted((suites / "demo" / "evaluation").glob("*/*/*"))
        answers = engine.classify([Image.open(picture).convert("RGB") for picture in pictures])
        right = [
            (answer.task, *answer.given) == (picture.parts[-3], picture.parts[-2])
            for picture, answer in zip(pictures, answers, strict=True)
        ]
        own = third["modes"][mode]
        assert own["accuracy"] == pytest.approx(mean(right), abs=1e-4)
        assert own["passes"] == pytest.approx(mean(answer.passes for answer in answers), abs=1e-4)
        assert own["gain"] == 0


def test_prices_at_a_third_are_those_of_the_engine(figures: dict[str, Any]) -> None:
    loaded, third = loaded_in("fast"), figures["stops"]["third"]
    assert third["block"] == early_stop(loaded.architecture.depth)
    passes = passes_for(loaded.bank, loaded.first_pass, 1)
    prices = measured_prices(loaded, passes, drawn_inputs(loaded), loaded.routed).tolist()
    assert list(third["prices"].values()) == pytest.approx(prices, abs=1e-4)
    assert third["beyond"] == pytest.approx(mean(price > FARTHEST_RESUMED for price in prices))


def test_a_later_stop_keeps_more_of_the_pretrained_pass(figures: dict[str, Any]) -> None:
    stops = figures["stops"]
    assert figures["inputs"] == 8 * LABELS * 2
    assert [own["block"] for own in stops.values()] == [1, 2, 3]
    means = [mean(own["prices"].values()) for own in stops.values()]
    assert means == sorted(means)
    assert figures["chosen"] == max(stops, key=lambda name: stops[name]["variation"])
    for own in stops.values():
        assert own["interval"][0] < own["right"] < own["interval"][1]
        for mode in own["modes"].values():
            assert mode["gain_interval"][0] <= mode["gain"] <= mode["gain_interval"][1]


def test_gains_are_those_over_a_third(figures: dict[str, Any]) -> None:
    third = figures["stops"]["third"]["modes"]
    for own in figures["stops"].values():
        for mode, found in own["modes"].items():
            gained = found["accuracy"] - third[mode]["accuracy"]
            assert found["gain"] == pytest.approx(gained, abs=2e-4)
