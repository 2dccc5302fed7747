"""mass-serve calibrate on the demo store: labels are not needed, and routing gains on other images."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from examples.demo_suite.gallery import EXAMPLES, GALLERIES
from examples.demo_suite.tasks import TASKS
from examples.suites.unseen import unseen
from mass_serve.cli.app import app
from mass_serve.engine import Engine, EngineOptions, Query
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.evaluation.calibrate import _teacher
from mass_serve.evaluation.calibrate import calibrate as run_calibration
from mass_serve.evaluation.data import BATCH_INPUTS, input_batches
from mass_serve.evaluation.inputs import Item, files_of
from mass_serve.model_store.errors import ManifestError, StoreError
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.progress import silent
from mass_serve.model_store.revisions import calibrate_store, remove_task
from mass_serve.model_store.store import Store
from tests.plain_demo import write_plain_demo

IMAGES_OF_A_LABEL = 4
# The shipped held-out images of every label: some to calibrate on, the others to measure on.
FITTED = GALLERIES["evaluation"][:IMAGES_OF_A_LABEL]
OTHERS = GALLERIES["evaluation"][IMAGES_OF_A_LABEL:]


def shipped(numbers: range) -> list[Path]:
    """The held-out images of these numbers, by task and label."""
    return [
        EXAMPLES / "evaluation" / task.name / label / f"{number:02}.png"
        for task in TASKS
        for label in task.labels
        for number in numbers
    ]


def images_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def pixel_batches(paths: Sequence[Path], engine: Engine) -> Iterator[list[Tensor]]:
    """The pixels of these files, as an evaluation reads them."""
    return input_batches(files_of(engine), Path.cwd(), [Item(str(path.absolute())) for path in paths])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of every task, and nobody's labels: they lie in one folder."""
    folder = tmp_path_factory.mktemp("images")
    for number, path in enumerate(shipped(FITTED)):
        shutil.copy(path, folder / f"{number}{path.suffix}")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_plain_demo(tmp_path / "store")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return write_plain_demo(tmp_path_factory.mktemp("plain") / "store")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, images: Path) -> tuple[Path, Result]:
    folder = write_plain_demo(tmp_path_factory.mktemp("calibrated") / "store")
    return folder, calibrate(folder, images, "--json")


def set_mode(store: Path, mode: str) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["router"]["mode"] = mode
    (store / "manifest.json").write_text(json.dumps(manifest))


def calibrate(store: Path, images: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["calibrate", str(store), str(images), *options])


def test_a_mode_that_this_version_does_not_have_is_refused_before_any_image_is_read(
    store: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("mass_serve.evaluation.calibration_inputs.input_batches", read)
    set_mode(store, "sometime_later")
    with pytest.raises(ManifestError, match=r"router\.mode must be one of .*, not 'sometime_later'"):
        run_calibration(str(store), images, 0.01, torch.device("cpu"), silent)


def test_it_says_what_it_found(calibrated: tuple[Path, Result], images: Path) -> None:
    store, result = calibrated
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    count = len(list(images.iterdir()))
    assert report["images"] == count
    # Each image counts as far as its answer is sure.
    assert 0.95 * count < sum(report["images_of"].values()) <= count
    for task in TASKS:
        assert report["images_of"][task.name] == pytest.approx(IMAGES_OF_A_LABEL * len(task.labels), rel=0.2)
    assert report["unknown"] == []
    manifest = Store.open(store).manifest
    assert manifest.store_revision == report["store_revision"]
    assert manifest.router.unrouted_below == report["unrouted_below"] > 0
    assert Store.open(store).verify() == []
    inspected = CliRunner().invoke(app, ["inspect", str(store)])
    assert f"calibrated on {count} images\n" in inspected.stdout


@pytest.fixture(scope="module")
def interleaved(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The same images, their names such that the tasks take turns in a listing."""
    folder = tmp_path_factory.mktemp("interleaved")
    paths = images_below(images)
    for number, path in enumerate(path for first in range(len(TASKS)) for path in paths[first :: len(TASKS)]):
        place = number % (len(paths) // len(TASKS)) * len(TASKS) + number // (len(paths) // len(TASKS))
        shutil.copy(path, folder / f"{place:04}{path.suffix}")
    return folder


@pytest.mark.parametrize(
    ("mode", "order"), [("fast", "images"), ("exact", "images"), ("exact", "interleaved")]
)
def test_the_wanted_share_of_other_such_images_is_unrouted(
    mode: str, order: str, store: Path, request: pytest.FixtureRequest
) -> None:
    """In the mode of the store, and of images that it was not calibrated on."""
    images: Path = request.getfixturevalue(order)
    set_mode(store, mode)
    report = json.loads(calibrate(store, images, "--json", "--unrouted", "0.1").stdout)
    assert report["mode"] == mode
    engine = Engine.load(str(store))
    answers = [
        answer
        for pixels in pixel_batches(shipped(OTHERS), engine)
        for answer in engine.classify_batch([Query(image) for image in pixels]).all_answers()
    ]
    share = sum(answer.unrouted for answer in answers) / len(answers)
    assert share == pytest.approx(0.1, abs=0.05)


def test_the_bound_is_that_of_the_stores_mode(
    store: Path, images: Path, calibrated: tuple[Path, Result]
) -> None:
    """The bound of `exact` would be too high or too low for one pass, which knows less of an image."""
    set_mode(store, "one_pass")
    assert calibrate(store, images).exit_code == 0
    engine = Engine.load(str(store))
    pixels = next(pixel_batches(images_below(images)[::4], engine))
    answers = engine.classify_batch([Query(image) for image in pixels]).all_answers()
    assert sum(answer.unrouted for answer in answers) <= 2
    bounds = [Store.open(folder).manifest.router.unrouted_below for folder in (store, calibrated[0])]
    assert abs(bounds[0] - bounds[1]) > 0.1 * bounds[1]


def test_what_no_task_covers_is_less_familiar_than_before(
    calibrated: tuple[Path, Result], images: Path, plain: Path
) -> None:
    """Gradients and noise, against images of the tasks: by the area under the curve."""
    others = [unseen(domain, number) for domain in ("gradients", "noise") for number in range(40)]
    areas = []
    for url in (plain, calibrated[0]):
        engine = Engine.load(str(url))
        own = [Query(image) for image in next(pixel_batches(images_below(images)[::3], engine))]
        strange = [Query(engine.preprocessing.preprocess(Image.fromarray(picture))) for picture in others]
        of_own, of_strange = (
            torch.tensor([a.familiarity or 0.0 for a in engine.classify_batch(queries).all_answers()])
            for queries in (own, strange)
        )
        areas.append(float((of_own.unsqueeze(1) > of_strange).float().mean()))
    assert areas[1] > areas[0] > 0.9


def test_the_same_images_give_the_same_calibration(calibrated: tuple[Path, Result], images: Path) -> None:
    """It is fitted to the store as it was built, not to the calibration before."""
    store, first = calibrated
    before = Store.open(store).load_calibration()
    second = calibrate(store, images, "--json")
    after = Store.open(store).load_calibration()
    assert before is not None
    assert after is not None
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-9, atol=1e-12)
    drop = {"store_revision"}
    reports = [json.loads(result.stdout) for result in (first, second)]
    assert {k: v for k, v in reports[0].items() if k not in drop} == {
        k: v for k, v in reports[1].items() if k not in drop
    }


def test_answers_change_with_it_and_a_left_out_task_does_no_harm(
    calibrated: tuple[Path, Result], images: Path, plain: Path
) -> None:
    store, _ = calibrated
    before, after = Engine.load(str(plain)), Engine.load(str(store))
    without = Engine.open(str(store), EngineOptions(), without=("greek",))
    pixels = next(pixel_batches(images_below(images)[:32], before))
    queries = [Query(image) for image in pixels]
    coefficients = [
        [answer.coefficients for answer in engine.classify_batch(queries).all_answers()]
        for engine in (before, after, without)
    ]
    assert coefficients[0] != coefficients[1]
    assert all("greek" not in of_image for of_image in coefficients[2])


def test_a_damaged_or_outdated_calibration_does_not_stop_the_next(
    store: Path, images: Path, calibrated: tuple[Path, Result]
) -> None:
    shutil.copytree(calibrated[0], store, dirs_exist_ok=True)
    entry = Store.open(store).manifest.calibration
    assert entry is not None
    (store / entry.file).write_bytes(b"damaged")
    assert calibrate(store, images).exit_code == 0
    assert Store.open(store).verify() == []


@pytest.mark.parametrize("harm", ["not a number", "no covariance", "fewer than none", "nobody's"])
def test_numbers_that_are_no_calibration_are_refused(
    store: Path, images: Path, calibrated: tuple[Path, Result], harm: str
) -> None:
    """With a right digest, as a program that writes stores may leave them."""
    tensors = Store.open(calibrated[0]).load_calibration()
    assert tensors is not None
    harmed = {name: tensor.clone() for name, tensor in tensors.items()}
    if harm == "not a number":
        harmed["means"][0, 0, 0] = torch.nan
    elif harm == "no covariance":
        harmed["covariance"].neg_()
    elif harm == "fewer than none":
        harmed["images"][3] = -5.0
    else:
        harmed["owner"][:, 3] = 0.0
    calibrate_store(Store.open(store), harmed, [task.name for task in TASKS], 800, 0.0)
    said = "means holds NaN" if harm == "not a number" else "no calibration: calibrate the store again"
    with pytest.raises(StoreError, match=said):
        Engine.load(str(store))
    assert calibrate(store, images).exit_code == 0
    Engine.load(str(store))


@pytest.mark.parametrize("without", [(), ("owner",)])
def test_a_calibration_of_other_kinds_of_evidence_is_not_used(
    store: Path, plain: Path, without: tuple[str, ...]
) -> None:
    """Another version of this program may have had others, and other tensors."""
    names, count = [task.name for task in TASKS], len(TASKS)
    tensors = {
        "means": torch.zeros(count, 3, count, dtype=torch.float64),
        "covariance": torch.eye(3 * count, dtype=torch.float64).view(3, count, 3, count),
        "images": torch.full((count,), 100.0, dtype=torch.float64),
        "owner": torch.eye(count, dtype=torch.float64),
    }
    entry = calibrate_store(Store.open(store), tensors, names, 800, 0.0).manifest.calibration
    assert entry is not None
    save_file({name: tensor for name, tensor in tensors.items() if name not in without}, store / entry.file)
    content = json.loads((store / MANIFEST_FILE).read_text())
    content["files"][entry.file] = hashlib.sha256((store / entry.file).read_bytes()).hexdigest()
    (store / MANIFEST_FILE).write_text(json.dumps(content))
    query = Query(torch.zeros(3, 32, 32, dtype=torch.uint8))
    before, after = (Engine.load(str(url)).classify_batch([query]).all_answers()[0] for url in (plain, store))
    assert before.coefficients == after.coefficients


def test_it_measures_what_early_exits_cost(plain: Path, calibrated: tuple[Path, Result]) -> None:
    assert {task.exit_price for task in Store.open(plain).manifest.tasks} == {None}
    prices = [task.exit_price for task in Store.open(calibrated[0]).manifest.tasks]
    assert all(price is not None and 0 < price < 2 for price in prices)


def test_after_a_change_of_tasks_it_waits(store: Path, calibrated: tuple[Path, Result]) -> None:
    shutil.copytree(calibrated[0], store, dirs_exist_ok=True)
    remove_task(store, "greek")
    inspected = CliRunner().invoke(app, ["inspect", str(store)])
    assert "images\n" in inspected.stdout, "on the pretrained weights the others' evidence stays as it was"
    assert Engine.load(str(store)).tasks.keys() == {task.name for task in TASKS} - {"greek"}


def test_where_all_tasks_have_a_part_in_the_evidence_it_says_that_it_waits(
    store: Path, calibrated: tuple[Path, Result]
) -> None:
    shutil.copytree(calibrated[0], store, dirs_exist_ok=True)
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["router"]["first_pass"] = "merged_base"
    (store / "manifest.json").write_text(json.dumps(manifest))
    remove_task(store, "greek")
    inspected = CliRunner().invoke(app, ["inspect", str(store)])
    assert "not used until the store is calibrated again" in inspected.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("count", "complaint"),
    [(0, "holds 0 images"), (199, "holds 199 images; a store of 8 tasks needs at least 200")],
)
def test_too_few_images(store: Path, images: Path, tmp_path: Path, count: int, complaint: str) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in images_below(images)[:count]:
        shutil.copy(path, few)
    before = (store / "manifest.json").read_bytes()
    result = calibrate(store, few)
    assert (result.exit_code, (store / "manifest.json").read_bytes()) == (2, before)
    assert complaint in result.stderr


def test_tasks_without_images_are_named_and_judged_as_before(
    store: Path, images: Path, tmp_path: Path
) -> None:
    engine = Engine.load(str(store))
    some = tmp_path / "some"
    some.mkdir()
    paths = images_below(images)
    for start, pixels in enumerate(pixel_batches(paths, engine)):
        answers = engine.classify_batch([Query(image) for image in pixels]).all_answers()
        for path, answer in zip(paths[start * BATCH_INPUTS :], answers, strict=False):
            if answer.task not in ("greek", "aerial"):
                shutil.copy(path, some)
    result = calibrate(store, some)
    assert result.exit_code == 0, result.output
    for line in result.stdout.splitlines():
        assert ("too few" in line) == line.strip().startswith(("greek", "aerial"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda folder: folder / "none", "does not exist"),
        (lambda folder: _with_a_text(folder), "notes.png"),
    ],
)
def test_what_is_no_folder_of_images(
    store: Path, tmp_path: Path, make: object, complaint: str, images: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    assert callable(make)
    result = calibrate(store, make(folder))
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert Store.open(store).manifest.calibration is None


def _with_a_text(folder: Path) -> Path:
    (folder / "notes.png").write_text("no image")
    return folder


def test_a_store_that_changes_before_it_is_read_is_not_calibrated(
    store: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(url: str, device: torch.device, trusted_keys: Path | None) -> LoadedStore:
        remove_task(store, "greek")
        return _teacher(url, device, trusted_keys)

    monkeypatch.setattr("mass_serve.evaluation.calibrate._teacher", changed)
    result = calibrate(store, images)
    assert result.exit_code == 2
    assert "was changed meanwhile" in result.stderr
    assert Store.open(store).manifest.calibration is None


def test_one_task_has_nothing_to_choose(store: Path, images: Path) -> None:
    for task in TASKS[1:]:
        remove_task(store, task.name)
    result = calibrate(store, images)
    assert result.exit_code == 2
    assert "has one task" in result.stderr
