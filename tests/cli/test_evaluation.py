"""The whole path by its commands: checkpoints, `build --eval-data`, `eval`, against transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection
from typer.testing import CliRunner

from mass_serve.cli.app import app
from mass_serve.evaluation import baselines
from mass_serve.kernels.backend import backend
from mass_serve.model_store.group_revisions import add_to_group
from mass_serve.model_store.revisions import remove_task
from tests.model_store.readers.test_adapters import MODULE, save_adapter
from tests.models import Suite

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images of each task at the encoder's own size, so that nothing is resized."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(3)
    for task in ("digits", "street", "signs"):
        for number in range(9):
            path = root / task / f"class {number % 3}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return root


@torch.inference_mode()
def _individual_accuracy(folder: Path, images: Path) -> float:
    """By transformers, from the same files."""
    model = CLIPVisionModelWithProjection.from_pretrained(folder).eval()  # type: ignore[no-untyped-call]
    head = load_file(folder / "head.safetensors")
    labels = json.loads((folder / "labels.json").read_text())
    right = []
    for path in images.rglob("*.png"):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255
        normalised = (pixels - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
        z = model(normalised[None]).image_embeds[0]
        if "bias" in head:
            logits = head["weight"] @ z + head["bias"]
        else:
            logits = torch.nn.functional.cosine_similarity(head["weight"], z[None])
        right.append(labels[int(logits.argmax())] == path.parent.name)
    return float(np.mean(right))


def _build(suite: Suite, out: Path, *more: str) -> str:
    tasks = [argument for task in suite.tasks for argument in ("--task", f"{task.name}={task.checkpoint}")]
    arguments = ["build", "--pretrained", str(suite.pretrained), *tasks, "--out", str(out), *more]
    result = CliRunner().invoke(app, arguments)
    return result.output if result.exit_code == 0 else f"exit {result.exit_code}: {result.output}"


def test_individual_accuracies_are_measured_and_used(suite: Suite, data: Path, tmp_path: Path) -> None:
    store, report = tmp_path / "store", tmp_path / "figures.json"
    _build(suite, store, "--eval-data", str(data), "--individual-accuracy", "street=0.5")
    manifest = json.loads((store / "manifest.json").read_text())
    recorded = {task["name"]: task["individual_accuracy"] for task in manifest["tasks"]}
    expected = {t.name: _individual_accuracy(t.checkpoint, data / t.name) for t in suite.tasks}
    assert recorded == expected | {"street": 0.5}
    result = CliRunner().invoke(app, ["eval", str(store), str(data), "--json", str(report)])
    assert result.exit_code == 0, result.output
    assert "average" in result.output
    figures = json.loads(report.read_text())
    for name, accuracy in recorded.items():
        task = figures["tasks"][name]
        assert task["images"] == 9
        assert task["baselines"]["individual"] == accuracy
        assert task["normalised_accuracy"] == (task["accuracy"] / accuracy if accuracy else None)
    assert set(figures["average"]) == set(figures["tasks"]["digits"])


def test_images_of_an_unknown_class_stop_the_build_before_it_starts(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "data" / "digits" / "cats").mkdir(parents=True)
    output = _build(suite, tmp_path / "store", "--eval-data", str(tmp_path / "data"))
    assert output.startswith("exit 2")
    assert "no class of digits" in output
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("wrong", ["store", "data"])
def test_what_is_missing_is_named_in_one_line(suite: Suite, data: Path, tmp_path: Path, wrong: str) -> None:
    store = tmp_path / "store"
    if wrong == "data":
        _build(suite, store)
    given = [str(store), str(tmp_path / "nowhere" if wrong == "data" else data)]
    result = CliRunner().invoke(app, ["eval", *given])
    assert result.exit_code == 2
    lines = [line for line in result.output.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert "Traceback" not in result.output


def _evaluate(store: Path, data: Path, *more: str) -> str:
    result = CliRunner().invoke(app, ["eval", str(store), str(data), *more])
    return result.output if result.exit_code == 0 else f"exit {result.exit_code}: {result.output}"


def test_a_group_is_measured_as_if_the_store_had_no_other_tasks(store: Path, data: Path) -> None:
    add_to_group(store, "numbers", ["street", "digits"])

    def figures_of(data: Path, *more: str) -> dict[str, Any]:
        _evaluate(store, data, *more, "--baseline", "tsv_c", "--json", str(store.parent / "figures.json"))
        figures: dict[str, Any] = json.loads((store.parent / "figures.json").read_text())
        return figures

    figures = figures_of(data, "--task", "@numbers")
    assert sorted(figures["tasks"]) == ["digits", "street"]
    remove_task(store, "signs")
    shutil.copytree(data / "digits", store.parent / "data" / "digits")
    shutil.copytree(data / "street", store.parent / "data" / "street")
    assert figures["tasks"] == figures_of(store.parent / "data")["tasks"]


def test_a_task_to_measure_that_there_is_not(store: Path, data: Path) -> None:
    output = _evaluate(store, data, "--task", "@numbers")
    assert output.startswith("exit 2")
    assert "there is no group '@numbers'; the groups are: none" in output


@pytest.mark.parametrize("command", ["eval", "check-config"])
def test_first_passes_that_the_device_does_not_compute_are_refused_before_the_store_is_read(
    store: Path, data: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(*_: object, **__: object) -> None:
        raise AssertionError("the store was loaded")

    monkeypatch.setattr("mass_serve.engine.loading.load_store", unread)
    monkeypatch.setenv("MASS_DEVICE", "cpu")
    monkeypatch.setenv("MASS_FIRST_PASS_DTYPE", "int8")
    given = [str(store), str(data)] if command == "eval" else [str(store)]
    with backend("fused"):
        result = CliRunner().invoke(app, [command, *given])
    assert result.exit_code == 2
    assert "error: first_pass_dtype: int8 is computed on a CPU" in result.output
    assert len(result.output.splitlines()) == 1


def test_the_finetuned_models_give_every_baseline_and_curve(
    suite: Suite, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for grid in ("TASK_ARITHMETIC", "TIES", "CONSENSUS", "ISOTROPIC"):
        monkeypatch.setattr(baselines, f"{grid}_COEFFICIENTS", (0.25, 0.5))
    store, journal, report = tmp_path / "store", tmp_path / "journal", tmp_path / "figures.json"
    _build(suite, store)
    finetuned = [part for t in suite.tasks for part in ("--finetuned", f"{t.name}={t.checkpoint}")]
    every = [part for name in baselines.NAMES for part in ("--baseline", name)]
    command = ("--json", str(report), "--resume", str(journal), "--curves", *finetuned, *every)
    output = _evaluate(store, data, *command, "--plots", str(tmp_path / "plots"))
    first = report.read_text()
    figures = json.loads(first)
    for task in suite.tasks:
        measured = figures["tasks"][task.name]["baselines"]
        assert measured["individual"] == _individual_accuracy(task.checkpoint, data / task.name), output
        assert None not in measured.values()
    stored = figures["baselines"]
    assert stored["individual"]["bytes_ratio"] == 3
    # Pretrained, multi-task vector, and a bit for each of 32 of each of three tasks; files have headers too.
    assert stored["tall_masks"]["bytes_ratio"] == pytest.approx(2 + 3 / 32, abs=0.01)
    assert stored["ties"]["searched"]["tried"] == stored["iso_c"]["searched"]["tried"] == [0.25, 0.5]
    assert [point["tasks"] for point in figures["curves"]["tasks"]] == [1, 2, 3]
    assert figures["curves"]["tasks"][-1]["mass"]["accuracy"] == pytest.approx(figures["average"]["accuracy"])
    ranks = [point["rank"] for point in figures["curves"]["rank"]]
    assert ranks == sorted(ranks)
    assert (tmp_path / "plots" / "accuracy_by_tasks.png").stat().st_size > 10_000
    assert (tmp_path / "plots" / "accuracy_by_rank.png").stat().st_size > 10_000
    report.unlink()
    _evaluate(store, data, *command)
    assert report.read_text() == first, "all of it was in the journal"


def test_only_the_baselines_that_are_asked_for_are_measured(suite: Suite, data: Path, tmp_path: Path) -> None:
    store, report = tmp_path / "store", tmp_path / "figures.json"
    _build(suite, store)
    wanted = ("--baseline", "tsv_c", "--baseline", "weight_averaging")
    assert "not measured" in _evaluate(store, data, *wanted, "--json", str(report))
    figures = json.loads(report.read_text())
    known = figures["average"]["baselines"]
    assert {name for name in known if known[name] is not None} == {"tsv_c", "weight_averaging"}
    assert list(figures["methods"]) == ["mass"], "nothing of TSV-M was measured"
    refused = _evaluate(store, data, "--baseline", "tsv_x")
    assert "exit 2" in refused
    assert "--baseline 'tsv_x' must be one of pretrained, tsv_m, tsv_c" in " ".join(refused.split())


def test_an_adapter_from_elsewhere_is_what_its_merged_model_is(
    suite: Suite, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Nothing but the store has its base.
    adapter, first = save_adapter(tmp_path / "adapter", Path("org/base")), suite.tasks[0].name
    merged = CLIPVisionModelWithProjection.from_pretrained(suite.pretrained)
    change = load_file(adapter / "adapter_model.safetensors")
    down, up = (change[f"base_model.model.{MODULE}.lora_{part}.weight"] for part in "AB")
    merged.get_parameter(f"{MODULE}.weight").data += up @ down / len(down)
    merged.save_pretrained(tmp_path / "merged")
    for file in ("head.safetensors", "labels.json"):
        (tmp_path / "merged" / file).write_bytes((adapter / file).read_bytes())
    filesystem = fsspec.filesystem("memory")
    for path in adapter.iterdir():
        filesystem.pipe_file(f"/models/adapter/{path.name}", path.read_bytes())
    _build(suite, tmp_path / "store", "--task", f"small={tmp_path / 'merged'}")
    shutil.copytree(data / first, tmp_path / "data" / "small")
    others = [part for task in suite.tasks for part in ("--finetuned", f"{task.name}={task.checkpoint}")]
    reports = []
    for name in (str(tmp_path / "merged"), "memory://models/adapter"):
        wanted = ("--baseline", "individual", "--baseline", "weight_averaging", "--json", "-")
        output = _evaluate(
            tmp_path / "store", tmp_path / "data", *wanted, *others, "--finetuned", f"small={name}"
        )
        reports.append(json.loads(output[output.index("{") :])["tasks"])
    filesystem.store.clear()
    assert reports[0] == reports[1]
    measured = reports[1]["small"]["baselines"]
    assert measured["individual"] == _individual_accuracy(tmp_path / "merged", data / first)
    assert measured["weight_averaging"] is not None


def test_finetuned_models_of_some_tasks_are_refused(suite: Suite, data: Path, tmp_path: Path) -> None:
    _build(suite, tmp_path / "store")
    one = suite.tasks[0]
    output = _evaluate(tmp_path / "store", data, "--finetuned", f"{one.name}={one.checkpoint}")
    assert output.startswith("exit 2")
    assert "signs, street is missing" in output
