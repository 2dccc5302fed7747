"""Tasks of any number of labels, measured: all labels right or not, their micro F1, and the data's forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.evaluation import EvaluationData, EvaluationDataError, files_of, with_individual_accuracies
from mass_serve.evaluation.chosen_thresholds import best_threshold
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.inputs import Target, TaskLabels
from mass_serve.evaluation.inputs.images import ImageFiles
from mass_serve.evaluation.measures import micro_f1
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.router import MODE_NAMES
from tests import texts, tiny

SEVERAL, ONE = "domain", "guard"
OPTIONS = BuildOptions(compression_ratio=1.0, block_dtype="float32", force=True)
TEXTS = [f"w{5 + 7 * row % 80} w{9 + 3 * row % 80}" for row in range(12)]
SKY = TaskLabels(("cloud", "sun", "10"), multi_label=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> texts.Finetuned:
    return texts.finetuned(tmp_path_factory.mktemp("models"), "Bert", (ONE, SEVERAL), multi_label=(SEVERAL,))


@pytest.fixture(scope="module")
def engine(models: texts.Finetuned, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("store")
    build(models.pretrained, models.tasks, folder / "store", OPTIONS, modes=MODE_NAMES)
    return Engine.load(str(folder / "store"), device="cpu")


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _labelled(root: Path, engine: Engine) -> list[tuple[set[str], set[str]]]:
    """Writes texts whose labels are partly those that are given; returns what is given and wanted of each."""
    known, found = engine.tasks[SEVERAL].labels, []
    for row, answer in enumerate(engine.classify(TEXTS, [SEVERAL])):
        given = set(answer.given)
        found.append((given, (given, given - set(known[:2]), given | set(known[2:]), set())[row % 4]))
    rows: list[dict[str, object]] = [
        {"text": text, "labels": sorted(wanted)} for text, (_, wanted) in zip(TEXTS, found, strict=True)
    ]
    root.mkdir()
    _write(root / f"{SEVERAL}.jsonl", rows)
    return found


def test_an_input_is_right_with_all_its_labels_and_micro_f1_counts_each(
    engine: Engine, tmp_path: Path
) -> None:
    found = _labelled(tmp_path / "data", engine)
    data = EvaluationData(tmp_path / "data", of_whole_inputs(engine.tasks), files_of(engine))
    report = evaluate(engine, data)
    baseline = report["baselines"]["tsv_c"]
    assert baseline is not None
    figures = baseline["tasks"][SEVERAL]
    accuracy = sum(given == wanted for given, wanted in found) / len(found)
    hits = sum(len(given & wanted) for given, wanted in found)
    all_labels = sum(len(given) + len(wanted) for given, wanted in found)
    assert 0 < accuracy < 1
    assert figures["accuracy"] == accuracy
    assert figures["micro_f1"] == pytest.approx(2 * hits / all_labels)
    # Inputs that are answered by another task have none of their labels right.
    routed, whole = report["tasks"][SEVERAL], engine.classify(TEXTS)
    own = [answer.task == SEVERAL for answer in whole]
    right = [is_own and given == wanted for is_own, (given, wanted) in zip(own, found, strict=True)]
    assert routed["accuracy"] == sum(right) / len(right)
    assert routed["micro_f1"] <= figures["micro_f1"]


def test_the_individual_accuracy_is_that_of_whole_answers(models: texts.Finetuned, tmp_path: Path) -> None:
    build(models.pretrained, models.tasks, tmp_path / "store", OPTIONS, modes=MODE_NAMES)
    engine = Engine.load(str(tmp_path / "store"), device="cpu")
    found = _labelled(tmp_path / "data", engine)
    measured = with_individual_accuracies(models.pretrained, models.tasks, OPTIONS, tmp_path / "data")
    accuracies = {task.name: task.individual_accuracy for task in measured}
    assert accuracies == {ONE: None, SEVERAL: sum(given == wanted for given, wanted in found) / len(found)}


def _targets(root: Path, engine: Engine) -> list[Target]:
    labels = of_whole_inputs(engine.tasks)
    return [one.target for one in files_of(engine).labelled(root, labels)]


def test_labels_are_names_or_numbers_in_a_list_or_in_a_cell(engine: Engine, tmp_path: Path) -> None:
    rows: list[list[object]] = [["domain 2", "domain 0"], [], [1], ["domain 0", 3, "domain 0"]]
    wanted: list[Target] = [(0, 2), (), (1,), (0, 3)]
    _write(tmp_path / f"{SEVERAL}.jsonl", [{"text": "w9", "labels": labels} for labels in rows])
    assert _targets(tmp_path, engine) == wanted
    (tmp_path / f"{SEVERAL}.jsonl").unlink()
    cells = ["|".join(map(str, labels)) for labels in rows]
    lines = ["text,labels", *(f"w9,{cell}" for cell in cells)]
    (tmp_path / f"{SEVERAL}.csv").write_text("\n".join(lines))
    assert _targets(tmp_path, engine) == wanted


def test_a_row_with_one_label_has_that_alone(engine: Engine, tmp_path: Path) -> None:
    _write(tmp_path / f"{SEVERAL}.jsonl", [{"text": "w9", "label": "domain 3"}])
    _write(tmp_path / f"{ONE}.jsonl", [{"text": "w9", "label": 1, "labels": "of somebody else"}])
    assert _targets(tmp_path, engine) == [(3,), (1,)]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({}, r"domain.jsonl:1: has no labels; domain needs a list of them, 'labels'"),
        ({"labels": {"domain 0": 1}}, r"jsonl:1: 'labels' must be a list, not"),
        ({"labels": ["horse"]}, r"jsonl:1: has the label 'horse'; domain has domain 0"),
        ({"labels": [0.5]}, r"jsonl:1: 'labels' must be the name of a class or its number, not 0.5"),
        ({"labels": [True]}, r"jsonl:1: 'labels' must be the name of a class or its number, not True"),
        ({"labels": [9]}, r"jsonl:1: has the label 9"),
    ],
)
def test_rows_whose_labels_are_none(
    engine: Engine, tmp_path: Path, row: dict[str, object], sentence: str
) -> None:
    _write(tmp_path / f"{SEVERAL}.jsonl", [{"text": "w9", **row}])
    with pytest.raises(EvaluationDataError, match=sentence):
        _targets(tmp_path, engine)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "sky" / "more").mkdir(parents=True)
    for name in ("a.png", "b.png", "more/c.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / "sky" / name)
    return tmp_path


def _listed(root: Path) -> dict[str, Target]:
    found = ImageFiles(tiny.preprocessing(32)).labelled(root, {"sky": SKY})
    return {one.item.place: one.target for one in found}


def test_images_have_their_labels_in_a_table_beside_them(pictures: Path) -> None:
    wanted = {"sky/a.png": (0, 1), "sky/b.png": (), "sky/more/c.png": (2,)}
    rows: list[dict[str, object]] = [
        {"file_name": "a.png", "labels": ["sun", "cloud"]},
        {"file_name": "b.png", "labels": []},
        {"file_name": "more/c.png", "labels": [2]},
    ]
    _write(pictures / "sky" / "metadata.jsonl", rows)
    assert _listed(pictures) == wanted
    (pictures / "sky" / "metadata.jsonl").unlink()
    (pictures / "sky" / "metadata.csv").write_text(
        "labels,file_name\ncloud|sun,a.png\n,b.png\n10,more/c.png\n"
    )
    assert _listed(pictures) == wanted


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"file_name": "d.png", "labels": []}, r"metadata.jsonl:2: .*d.png does not exist"),
        ({"file_name": "more", "labels": []}, r"metadata.jsonl:2: .*more does not exist"),
        ({"labels": []}, "metadata.jsonl:2: 'file_name' must be the name of an image, and is missing"),
        ({"file_name": "a.png", "labels": []}, "metadata.jsonl:2: has a.png again, as line 1 has"),
        ({"file_name": "b.png", "labels": ["moon"]}, "metadata.jsonl:2: has the label 'moon'; sky has cloud"),
    ],
)
def test_rows_of_no_image_are_refused(pictures: Path, row: dict[str, object], sentence: str) -> None:
    _write(pictures / "sky" / "metadata.jsonl", [{"file_name": "a.png", "labels": [0]}, row])
    with pytest.raises(EvaluationDataError, match=sentence):
        _listed(pictures)


def test_two_tables_of_one_task_are_refused(pictures: Path) -> None:
    for name in ("metadata.jsonl", "metadata.csv"):
        (pictures / "sky" / name).touch()
    with pytest.raises(EvaluationDataError, match="has 2 files named metadata: leave one of them"):
        _listed(pictures)


def test_a_table_that_names_no_images_is_refused(pictures: Path) -> None:
    (pictures / "sky" / "metadata.csv").write_text("image,labels\na.png,sun\n")
    with pytest.raises(
        EvaluationDataError, match=r"metadata\.csv:1: must name the columns, file_name among them"
    ):
        _listed(pictures)


def test_images_of_both_kinds_of_task_are_measured(tmp_path: Path) -> None:
    engine = Engine(tiny.loaded_store(2, mode="exact", multi_label=(1,)), Execution.LOW_RANK, 1 << 30)
    labels = {
        f"task{task}": TaskLabels([f"class {row}" for row in range(3 + task)], task == 1) for task in (0, 1)
    }
    for number, pixels in enumerate(tiny.pixels(8)):
        folder = tmp_path / "task0" / f"class {number % 3}" if number % 2 else tmp_path / "task1"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    paths = sorted((tmp_path / "task1").glob("*.png"))
    _write(
        tmp_path / "task1" / "metadata.jsonl", [{"file_name": path.name, "labels": [0, 2]} for path in paths]
    )
    report = evaluate(engine, EvaluationData(tmp_path, labels, files_of(engine)))
    assert {task: figures["images"] for task, figures in report["tasks"].items()} == {"task0": 4, "task1": 4}
    one, several = report["tasks"]["task0"], report["tasks"]["task1"]
    assert one["micro_f1"] == one["accuracy"]
    assert several["micro_f1"] >= several["accuracy"]


def test_micro_f1_of_nothing_is_whole() -> None:
    assert micro_f1(0, 0, 0) == 1.0
    assert micro_f1(0, 3, 0) == 0.0
    assert micro_f1(2, 3, 4) == pytest.approx(4 / 7)


@pytest.mark.parametrize(
    ("probabilities", "has_it", "wanted"),
    [
        ([0.9, 0.7, 0.4, 0.1], [True, True, False, False], (0.4, 0.7)),
        ([0.1, 0.9, 0.4, 0.7], [False, True, False, True], (0.4, 0.7)),
        ([0.9, 0.8, 0.2], [False, False, True], (0.0, 0.2)),
        ([0.6, 0.6, 0.3], [True, False, False], (0.3, 0.6)),
        ([0.5], [True], (0.0, 0.5)),
        ([1.0, 0.0], [True, True], (0.0, 1.0)),
    ],
)
def test_the_best_threshold_lies_between_two_probabilities(
    probabilities: list[float], has_it: list[bool], wanted: tuple[float, float]
) -> None:
    found = best_threshold(torch.tensor(probabilities), torch.tensor(has_it))
    assert wanted[0] < found < wanted[1]


def test_no_other_threshold_has_a_better_f1() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        probabilities = torch.rand(30, generator=generator)
        has_it = torch.rand(30, generator=generator) < probabilities

        def f1(threshold: float, probabilities: Tensor = probabilities, has_it: Tensor = has_it) -> float:
            given = probabilities >= threshold
            return micro_f1(int((given & has_it).sum()), int(given.sum()), int(has_it.sum()))

        best = f1(best_threshold(probabilities, has_it))
        assert best == max(f1(one) for one in [*probabilities.tolist(), 0.0])
