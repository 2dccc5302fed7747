"""mass-serve calibrate --task-folders on the demo: names of folders are the tasks of what is in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner, Result

from examples.demo_suite.gallery import EXAMPLES, GALLERIES
from examples.demo_suite.tasks import TASKS
from mass_serve.cli.app import app
from mass_serve.engine import Classification, Engine, Query
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.revisions import calibrate_store
from mass_serve.model_store.store import Store
from tests.plain_demo import write_plain_demo

NAMES = [task.name for task in TASKS]
OF_EACH = 8
FITTED, MEASURED = GALLERIES["evaluation"][0], GALLERIES["evaluation"][1]
FURTHER = GALLERIES["evaluation"][2:5]


def pictures(task: str, number: int) -> list[Path]:
    """The shipped held-out image of this number of every label."""
    return sorted((EXAMPLES / "evaluation" / task).glob(f"*/{number:02}.png"))


def folders(root: Path, of_task: Mapping[str, Sequence[Path]]) -> Path:
    for task, paths in of_task.items():
        (root / task / "any" / "depth").mkdir(parents=True)
        for number, path in enumerate(paths):
            shutil.copy(path, root / task / "any" / "depth" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of every task."""
    return folders(tmp_path_factory.mktemp("few"), {name: pictures(name, FITTED)[:OF_EACH] for name in NAMES})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_plain_demo(tmp_path / "store")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return write_plain_demo(tmp_path_factory.mktemp("plain") / "store")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, few: Path) -> tuple[Path, Result]:
    folder = write_plain_demo(tmp_path_factory.mktemp("calibrated") / "store")
    return folder, calibrate(folder, few, "--json")


def calibrate(store: Path, images: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["calibrate", str(store), str(images), "--task-folders", *options])


def answers(store: Path, paths: Sequence[Path], **options: str) -> list[Classification]:
    engine = Engine.load(str(store), **options)
    pixels = [engine.preprocessing.preprocess(image) for image in map(opened, paths)]
    return engine.classify_batch([Query(one) for one in pixels]).all_answers()


def opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def test_every_image_is_of_the_task_that_its_folder_names(calibrated: tuple[Path, Result]) -> None:
    store, result = calibrated
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["images_of"] == dict.fromkeys(NAMES, OF_EACH)
    assert (report["images"], report["unknown"]) == (OF_EACH * len(NAMES), [])
    manifest = Store.open(store).manifest
    assert manifest.router.unrouted_below == report["unrouted_below"]
    assert Store.open(store).verify() == []


def right(store: Path, mode: str) -> float:
    """The mean probability of the right task, of images that no store here is calibrated on."""
    paths = [path for name in NAMES for path in pictures(name, MEASURED)]
    tasks = [NAMES.index(name) for name in NAMES for _ in pictures(name, MEASURED)]
    evidence = [answer.evidence for answer in answers(store, paths, mode=mode)]
    own = [one.routing_coefficients[task] for one, task in zip(evidence, tasks, strict=True) if one]
    return float(torch.stack(own).mean())


@pytest.mark.parametrize("mode", ["one_pass", "balanced"])
def test_eight_of_a_task_lose_nothing(calibrated: tuple[Path, Result], plain: Path, mode: str) -> None:
    assert right(calibrated[0], mode) > right(plain, mode) - 0.01


def test_thirty_of_a_task_gain_where_there_is_something_to_gain(
    store: Path, plain: Path, tmp_path: Path
) -> None:
    paths = {name: [path for number in FURTHER for path in pictures(name, number)] for name in NAMES}
    assert calibrate(store, folders(tmp_path / "many", paths)).exit_code == 0
    assert right(store, "one_pass") > right(plain, "one_pass") + 0.05


def test_no_answer_is_taken_for_the_truth(store: Path, plain: Path, tmp_path: Path) -> None:
    """Letters of two scripts that lie in each other's folder: the store learns to say what it was told."""
    swapped = {"greek": "hebrew", "hebrew": "greek"}
    paths = {
        name: [p for n in GALLERIES["evaluation"][:4] for p in pictures(swapped.get(name, name), n)]
        for name in NAMES
    }
    before: list[Tensor] = []
    after: list[Tensor] = []
    assert calibrate(store, folders(tmp_path / "swapped", paths)).exit_code == 0
    for task, told in swapped.items():
        for place, found in ((plain, before), (store, after)):
            of_place = answers(place, pictures(task, MEASURED), mode="balanced")
            found += [
                one.evidence.routing_coefficients[NAMES.index(told)] for one in of_place if one.evidence
            ]
    assert torch.stack(after).mean() > torch.stack(before).mean() + 0.2


def test_the_same_images_give_the_same_calibration(calibrated: tuple[Path, Result], few: Path) -> None:
    store, _ = calibrated
    before = Store.open(store).load_calibration()
    assert calibrate(store, few).exit_code == 0
    after = Store.open(store).load_calibration()
    assert before is not None
    assert after is not None
    assert before.keys() == after.keys() == {"means", "covariance", "images", "owner", "weights"}
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-6, atol=1e-9)


def test_a_left_out_task_does_no_harm(calibrated: tuple[Path, Result]) -> None:
    without = Engine.load(str(calibrated[0])).tasks.keys() - {"greek"}
    engine = Engine.load(str(calibrated[0]))
    image = engine.preprocessing.preprocess(opened(pictures("greek", MEASURED)[0]))
    (answer,) = engine.classify_batch([Query(image, tuple(without))]).all_answers()
    assert answer.task in without
    assert sum(answer.coefficients.values()) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("missing", "has no images of greek: give some of every task"),
        ("empty", "greek holds no images: add some, or delete it"),
        ("unknown", "latin is named as no task of the store; it has digits, street, greek,"),
        ("none", "holds no images; expected"),
    ],
)
def test_folders_that_are_not_the_tasks_are_told(
    store: Path, few: Path, tmp_path: Path, change: str, complaint: str
) -> None:
    images = tmp_path / "images"
    shutil.copytree(few, images)
    if change in ("missing", "empty"):
        shutil.rmtree(images / "greek")
    if change == "empty":
        (images / "greek").mkdir()
    if change == "unknown":
        shutil.copytree(images / "greek", images / "latin")
    if change == "none":
        images = tmp_path / "none"
        images.mkdir()
    before = (store / "manifest.json").read_bytes()
    result = calibrate(store, images)
    assert (result.exit_code, (store / "manifest.json").read_bytes()) == (2, before)
    assert complaint in result.stderr.replace("\n", " ")


def test_weights_that_are_no_numbers_are_refused(store: Path, calibrated: tuple[Path, Result]) -> None:
    tensors = Store.open(calibrated[0]).load_calibration()
    assert tensors is not None
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    tensors["weights"][1, 0] = torch.nan
    calibrate_store(Store.open(store), tensors, NAMES, 64, 0.0)
    with pytest.raises(StoreError, match="weights holds NaN"):
        Engine.load(str(store))


def test_folders_within_name_classes_and_no_answer_is_taken_for_one(store: Path, tmp_path: Path) -> None:
    """Even where the pictures are of another class."""
    root = tmp_path / "labelled"
    for task in TASKS:
        (root / task.name / task.labels[2]).mkdir(parents=True)
        for number, path in enumerate(pictures(task.name, FITTED)[:OF_EACH]):
            shutil.copy(path, root / task.name / task.labels[2] / f"{number}.png")
    result = CliRunner().invoke(app, ["calibrate", str(store), str(root), "--labelled", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images_of"] == dict.fromkeys(NAMES, OF_EACH)
    tensors = Store.open(store).load_calibration()
    assert tensors is not None
    for row, name in enumerate(NAMES):
        of_classes = tensors["images"][tensors["owner"][row] > 0].tolist()
        labels = Store.open(store).task(name).labels
        expected = [OF_EACH if label == TASKS[row].labels[2] else 0 for label in labels]
        assert of_classes == expected


def test_labels_that_are_wrong_or_missing_are_named(store: Path, few: Path, tmp_path: Path) -> None:
    def said(data: Path, *options: str) -> str:
        result = CliRunner().invoke(app, ["calibrate", str(store), str(data), "--labelled", *options])
        assert result.exit_code == 2, result.output
        return " ".join(result.stderr.split())

    assert "is named as no class of" in said(few)
    some = tmp_path / "some" / "digits" / "zero"
    some.mkdir(parents=True)
    shutil.copy(pictures("digits", FITTED)[0], some / "0.png")
    assert "has no images of street" in said(tmp_path / "some")
    assert "calibrate without --labelled" in said(tmp_path / "some")
    assert "leave --task-folders out" in said(few, "--task-folders")
