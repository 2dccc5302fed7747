"""What `benchmarks.engine` writes, at tiny sizes, and what its pages make of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.engine import dense
from benchmarks.engine import times as engine_times
from benchmarks.engine.__main__ import Figures
from benchmarks.engine.dense import DenseModels, left_out
from benchmarks.engine.stores import build, store_ratio
from benchmarks.random_models import write_checkpoints
from benchmarks.timing import minima
from docs import engine_times as tables
from mass_serve.router import MODE_NAMES
from tests.tiny import CONFIG

pytestmark = pytest.mark.slow

BATCHES = {1: 1, 3: 1}  # how often each is measured
TASKS = 2


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written of a store of two tasks."""
    folder = tmp_path_factory.mktemp("engine")
    pretrained, finetuned = write_checkpoints(folder, CONFIG, TASKS)
    store, seconds = build(folder, pretrained, finetuned)
    assert seconds > 0
    assert 1 < store_ratio(store, pretrained) < 3
    size = CONFIG.patches.image_size
    images = list(torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8))
    written = folder / "engine.json"
    figures = Figures(written)
    for times in engine_times.times_of(str(store), "2 tasks", DenseModels(CONFIG, folder), images, BATCHES):
        figures.add_times(times)
    return written


def test_every_mode_is_measured_in_every_dtype_beside_every_library_that_is_there(recorded: Path) -> None:
    found: list[dict[str, Any]] = json.loads(recorded.read_text())["times"]
    assert [(one["dtype"], one["batch"]) for one in found] == [
        (dtype, batch) for dtype in engine_times.DTYPES for batch in BATCHES
    ]
    missing = left_out()
    for one in found:
        assert set(one["answers"]) == set(one["passes"]) == {"named", *MODE_NAMES}
        assert one["passes"]["named"] == 1
        assert one["passes"]["balanced"] >= one["passes"]["one_pass"]
        measured = {*one["dense"].values(), *one["answers"].values(), *one["many_models"].values()}
        assert min(measured) > 0
        others = {dense.ONNX, dense.OPENVINO, "transformers"} - set(missing)
        others -= {"float32": set(), "bfloat16": {dense.ONNX}, "int8": {dense.OPENVINO, "transformers"}}[
            one["dtype"]
        ]
        assert set(one["dense"]) == {"ours", *others}


def test_the_tables_have_a_row_for_each_batch_and_the_passes(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RECORDED", recorded)
    runs = len(engine_times.DTYPES) * len(BATCHES)
    rows = tables.engine_times_table().splitlines()[2:]
    assert len(rows) == runs + 1
    one = json.loads(recorded.read_text())["times"][0]
    exact = one["answers"]["exact"] / min(one["dense"].values())
    assert f"| {exact:.2f} |" in rows[0]
    assert len(tables.engine_dense_table().splitlines()) == runs + 2


def test_what_is_not_installed_is_left_out_with_a_line_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "find_spec", lambda name: None if name == "openvino" else importlib.util)
    assert list(left_out()) == [dense.OPENVINO]
    assert left_out()[dense.OPENVINO].startswith("OpenVINO is left out: it needs openvino, which pip install")
    monkeypatch.setattr(dense, "find_spec", lambda name: None)  # noqa: ARG005
    assert set(left_out()) == set(dense.NEEDED)
    models = DenseModels(CONFIG, tmp_path)
    size = CONFIG.patches.image_size
    assert list(models.forwards("float32", torch.zeros(1, 3, size, size))) == ["transformers"]
    assert list(models.forwards("int8", torch.zeros(1, 3, size, size))) == []
    assert list(tmp_path.iterdir()) == []


def test_a_variant_runs_once_more_where_it_warms_up() -> None:
    runs: list[str] = []
    minima({"one": lambda: runs.append("one"), "two": lambda: runs.append("two")}, 2, warm_up=False)
    assert runs == ["one", "two"] * 2
    minima({"three": lambda: runs.append("three")}, 2)
    assert runs[4:] == ["three"] * 3
