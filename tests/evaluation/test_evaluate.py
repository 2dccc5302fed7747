"""The evaluation against counts made by hand from the engine's own answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.evaluation import EvaluationData, EvaluationDataError, files_of
from mass_serve.evaluation.answer_journal import AnswerJournal
from mass_serve.evaluation.data import InputBatch, of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.index import Selection
from mass_serve.evaluation.methods import Answer, AnyHead, Dense, dense_logits
from mass_serve.evaluation.plots import write_plots
from mass_serve.evaluation.search import Search
from mass_serve.inputs.images import ImageLimits, decode_image
from mass_serve.model_store.progress import silent
from tests import tiny


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny.loaded_store(tasks=3), Execution.LOW_RANK, 1 << 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven noise images of task0 and five of task2, in two classes each; task1 has none."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for task, count in (("task0", 7), ("task2", 5)):
        for number in range(count):
            path = root / task / f"class {number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    (root / "task0" / "class 0" / "notes.txt").write_text("not an image, and not named as one")
    return root


def _data(engine: Engine, folder: Path) -> EvaluationData:
    labels = of_whole_inputs(engine.tasks)
    return EvaluationData(folder, labels, files_of(engine))


def test_the_figures_are_the_counts(engine: Engine, folder: Path) -> None:
    figures = evaluate(engine, _data(engine, folder))
    assert list(figures["tasks"]) == ["task0", "task2"]
    for task in ("task0", "task2"):
        paths = sorted((folder / task).rglob("*.png"))
        images = [decode_image(path.read_bytes(), ImageLimits(10**6)) for path in paths]
        truth = [path.parent.name for path in paths]
        answers = engine.classify(images)
        named = engine.classify(images, tasks=[task])
        given = [(a.task, a.labels[int(a.probabilities.argmax())]) for a in answers]
        known = [a.labels[int(a.probabilities.argmax())] for a in named]
        counted = figures["tasks"][task]
        assert counted["images"] == len(paths)
        assert counted["accuracy"] == sum(g == (task, t) for g, t in zip(given, truth, strict=True)) / len(
            paths
        )
        assert counted["task_survival"] == sum(task in a.expert_set for a in answers) / len(paths)
        assert counted["mean_set_size"] == sum(len(a.expert_set) for a in answers) / len(paths)
        two = [
            (g, *((o.task, o.labels[int(o.logits.argmax())]) for o in a.alternatives[:1]))
            for g, a in zip(given, answers, strict=True)
        ]
        right_of_two = sum((task, t) in of for of, t in zip(two, truth, strict=True))
        assert counted["right_of_two"] == right_of_two / len(paths)
        first = [max(a.coefficients, key=lambda n, a=a: a.coefficients[n]) for a in answers]  # type: ignore[misc]
        assert counted["router_accuracy"] == first.count(task) / len(paths)
        tsv_c = sum(k == t for k, t in zip(known, truth, strict=True)) / len(paths)
        assert counted["baselines"]["tsv_c"] == tsv_c
        assert counted["baselines"]["individual"] is None
        assert counted["normalised_accuracy"] is None
    assert figures["average"]["images"] == 12
    for task in ("task0", "task2"):
        low, high = figures["tasks"][task]["intervals"]["accuracy"]
        assert 0 <= low <= figures["tasks"][task]["accuracy"] <= high <= 1
        routed_to = figures["methods"]["mass"]["routed_to"][task]
        assert routed_to.get(task, 0) / figures["tasks"][task]["images"] == pytest.approx(
            figures["tasks"][task]["router_accuracy"]
        )
    calibration = figures["methods"]["mass"]["label_calibration"]
    assert sum(part["images"] for part in calibration["bins"]) == 12
    by_hand = [figures["tasks"][task]["accuracy"] for task in ("task0", "task2")]
    assert figures["average"]["accuracy"] == pytest.approx(sum(by_hand) / 2)


def test_the_merged_model_answers_with_the_largest_logit_of_all_heads(engine: Engine, folder: Path) -> None:
    merged = engine.bank.merged_parameters(list(engine.bank.pretrained), range(engine.bank.num_tasks))
    heads = {task: engine.head(task) for task in engine.tasks}
    method = AnyHead("any", engine.architecture, files_of(engine), heads, lambda: merged)
    batch = next(_data(engine, folder).batches(Selection("task0", 0)))
    logits = {
        task: dense_logits(engine.architecture, merged, files_of(engine), head, batch.inputs)
        for task, head in heads.items()
    }
    for row, answer in enumerate(method.answer(batch)):
        flat = {(task, i): float(v) for task, of in logits.items() for i, v in enumerate(of[row])}
        assert (answer.task, answer.labels[0]) == max(flat, key=lambda key: flat[key])
        total = sum(math.exp(value) for value in flat.values())
        own = sum(math.exp(value) for (task, _), value in flat.items() if task == answer.task)
        assert answer.routing is not None
        assert answer.routing.coefficient == pytest.approx(own / total, rel=1e-4)
        assert answer.score == pytest.approx(math.exp(flat[answer.task, answer.labels[0]]) / own, rel=1e-4)


def test_the_plots_are_pictures(engine: Engine, folder: Path, tmp_path: Path) -> None:
    written = write_plots(evaluate(engine, _data(engine, folder)), tmp_path / "plots")
    methods = ("mass", "tsv_m_any_head")
    kinds = [f"{kind}_{method}.png" for method in methods for kind in ("routing", "reliability")]
    assert [path.name for path in written] == ["accuracy.png", *kinds]
    for path in written:
        with Image.open(path) as picture:
            colours = picture.convert("RGB").getcolors(10**6)
        assert colours is not None
        assert len(colours) > 20, "something is drawn"


def test_no_image_is_answered_with_what_was_tuned_on_it(engine: Engine, folder: Path) -> None:
    data = _data(engine, folder)
    seen: dict[int, list[int]] = {}

    class Watched(Dense):
        def answer(self, batch: InputBatch) -> list[Answer]:
            seen.setdefault(batch.half, []).extend(batch.ids)
            return super().answer(batch)

    def method(_coefficient: float, half: int) -> Dense:
        seen.clear()
        inner = (engine.architecture, files_of(engine), engine.head)
        watched = Watched("watched", *inner, lambda _task, _half: engine.bank.pretrained)
        halves_seen.append((half, seen))
        return watched

    halves_seen: list[tuple[int, dict[int, list[int]]]] = []
    found = Search(data, AnswerJournal(data.database), silent).common("watched", (0.5,), method)
    assert found.inputs == 12
    assert set(found.coefficients) == {(task, half) for task in ("task0", "task2") for half in (0, 1)}
    used_for, tuned_on = halves_seen[-1]
    assert set(tuned_on) == {1 - used_for}


@pytest.mark.parametrize(
    ("path", "content", "match"),
    [
        ("task9/class 0/a.png", b"", "no task of the store"),
        ("task0/cats/a.png", b"", "no class of task0"),
        ("task0/class 0/a.png", b"not a picture", "a.png"),
        ("notes.txt", b"", "holds no images"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(
    engine: Engine, tmp_path: Path, path: str, content: bytes, match: str
) -> None:
    target = tmp_path / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    with pytest.raises(EvaluationDataError, match=match):
        evaluate(engine, _data(engine, tmp_path))


def test_a_missing_folder_is_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(EvaluationDataError, match="no folder"):
        _data(engine, tmp_path / "nowhere")
