"""What flips from one revision to another on the command line, and changes that are not activated for it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mass_serve.engine import Engine
from mass_serve.model_store.next_store import find_next
from mass_serve.model_store.store import Store
from tests.cli.test_stores import failure, run, run_json
from tests.models import Suite

IMAGES = 40


def pictures() -> Iterator[Image.Image]:
    """Noise in blocks, always alike."""
    random = np.random.default_rng(7)
    for _ in range(IMAGES):
        blocks = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        yield Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def data(built_of_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in the folders of what the store answers, one of them in a wrong one."""
    root = tmp_path_factory.mktemp("data")
    images = list(pictures())
    for number, (image, answer) in enumerate(
        zip(images, Engine.load(str(built_of_all)).classify(images), strict=True)
    ):
        folder = root / answer.task / answer.given[0]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number:02}.png")
    return root


@pytest.fixture
def other(suite: Suite, tmp_path: Path) -> Path:
    """Another model for the task digits, with other labels, too."""
    return Path(shutil.copytree(suite.tasks[2].checkpoint, tmp_path / "other"))


def revision(store: Path) -> str:
    return Store.open(store).manifest.store_revision


def test_the_same_model_again_flips_nothing_and_is_activated(suite: Suite, store: Path, data: Path) -> None:
    before = revision(store)
    arguments = ("task", "add", store, "digits", suite.tasks[0].checkpoint, "--replace", "--eval-data", data)
    said = run_json(*arguments)
    assert said["activated"] is True
    assert said["store"] == str(store)
    assert said["store_revision"] == revision(store) == said["flips"]["after"] != before
    assert said["flips"]["before"] == before
    assert said["flips"]["flips"] == []
    assert said["flips"]["total"]["inputs"] == said["flips"]["total"]["right_after"] == IMAGES
    assert find_next(store) is None
    out = run(*arguments)[0]
    assert f": 0 of {IMAGES} inputs flip\n" in out
    assert f"{store}: revision {revision(store)}" in out


def test_a_model_that_flips_answers_is_kept_beside_the_store(store: Path, data: Path, other: Path) -> None:
    before = Store.open(store).manifest
    arguments = ("task", "add", store, "digits", other, "--replace", "--eval-data", data)
    out, err = run(*arguments, "--json", code=1)
    said: dict[str, Any] = json.loads(out)
    assert Store.open(store).manifest == before
    assert said["activated"] is False
    assert said["store"] == f"{store}#next"
    flips = said["flips"]
    assert 0 < flips["negative_flips"] == flips["total"]["right_to_wrong"] == len(flips["flips"])
    assert f"{flips['negative_flips']} inputs turn from right to wrong, and at most 0 may" in err
    assert f"the new revision is not activated; it is {store}#next until" in err
    for change in flips["flips"]:
        assert (data / change["input"]).is_file()
        assert change["before"] == change["expected"] != change["after"]
    of_tasks = Counter(change["expected"]["task"] for change in flips["flips"])
    assert {
        name: counts["right_to_wrong"] for name, counts in flips["tasks"].items() if counts["right_to_wrong"]
    } == of_tasks
    assert "#next already: `mass-serve next promote` or `discard` it first" in failure(*arguments)
    promoted = run_json("next", "promote", store, "--revision", flips["after"])
    assert revision(store) == promoted["store_revision"] == flips["after"]


def test_as_many_may_flip_as_are_allowed(store: Path, data: Path, other: Path) -> None:
    arguments = ("task", "add", store, "digits", other, "--replace", "--eval-data", data)
    out = run(*arguments, "--max-negative-flips", "100%")[0]
    assert "right to wrong: " in out
    assert find_next(store) is None
    assert Store.open(store).task("digits").labels == (
        "class 0",
        "class 1",
        "class 2",
        "class 3",
        "class 4",
        "class 5",
    )


def test_two_stores_are_compared_both_ways(store: Path, built_of_all: Path, data: Path, other: Path) -> None:
    run("task", "add", store, "digits", other, "--replace")
    there = run_json("compare", built_of_all, store, data)
    back = run_json("compare", store, built_of_all, data)
    assert there["total"]["right_to_wrong"] == back["total"]["wrong_to_right"] > 0
    assert there["negative_flips"] == there["total"]["right_to_wrong"]
    assert back["total"]["right_before"] == IMAGES - there["total"]["right_to_wrong"]
    assert back["negative_flips"] == 0
    out = run("compare", built_of_all, store, data)[0]
    assert (
        f"from revision {there['before']} to {there['after']}: {len(there['flips'])} of {IMAGES} inputs flip"
        in out
    )
    most = there["negative_flips"]
    run("compare", built_of_all, store, data, "--max-negative-flips", most)
    _, err = run("compare", built_of_all, store, data, "--max-negative-flips", most - 1, code=1)
    assert f"error: {most} inputs turn from right to wrong, and at most {most - 1} may" in err


def test_inputs_without_labels_count_where_they_flip(
    store: Path, built_of_all: Path, data: Path, other: Path
) -> None:
    run("task", "add", store, "digits", other, "--replace")
    labelled = run_json("compare", built_of_all, store, data)
    said = run_json("compare", built_of_all, store, data, "--unlabelled")
    assert said["negative_flips"] == said["total"]["unknown"] == len(labelled["flips"])
    assert said["total"]["right_before"] is None
    assert {change["input"] for change in said["flips"]} == {change["input"] for change in labelled["flips"]}
    assert said["flips"][0]["expected"] is None


def test_a_task_that_is_gone_is_answered_by_others(store: Path, data: Path) -> None:
    (task, *_) = sorted(path.name for path in data.iterdir())
    run("task", "remove", f"{store}#next", task)
    said = run_json("compare", store, f"{store}#next", data)
    own = said["tasks"][task]
    assert own["right_to_wrong"] == own["other_task"] == own["inputs"] > 0
    assert own["right_after"] == 0


def test_texts_are_compared_too(text_store: Path, tmp_path: Path) -> None:
    lines = [{"text": f"w{number} w{number + 1}", "label": 0} for number in range(5, 15)]
    (tmp_path / "guard.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = run_json("compare", text_store, f"{text_store}#next", tmp_path)
    assert said["before"] == said["after"], "while there is no next revision, it is the store"
    assert (said["total"]["inputs"], said["flips"]) == (10, [])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--max-negative-flips", "3"), "are about --eval-data: give it, too"),
        (("--unlabelled",), "are about --eval-data: give it, too"),
        (("--eval-data", "nowhere"), "--eval-data nowhere is no folder"),
        (("--eval-data", ".", "--max-negative-flips", "-1"), "must be a number of inputs, or a share"),
        (("--eval-data", ".", "--max-negative-flips", "1.5"), "must be a number of inputs, or a share"),
        (("--eval-data", ".", "--max-negative-flips", "nan%"), "must be a number of inputs, or a share"),
    ],
)
def test_mistakes_are_told_before_long_work(
    store: Path, other: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    before = sorted(store.rglob("*"))
    assert sentence in failure("task", "add", store, "digits", other, "--replace", *arguments)
    assert sorted(store.rglob("*")) == before


def test_a_next_revision_is_judged_by_compare(store: Path, other: Path, data: Path) -> None:
    add = ("task", "add", f"{store}#next", "digits", other, "--replace")
    assert "stays beside it: use `compare`" in failure(*add, "--eval-data", data)


def test_data_that_cannot_be_read_activates_nothing(store: Path, other: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "cars" / "class 0").mkdir(parents=True)
    before = revision(store)
    add = ("task", "add", store, "digits", other, "--replace", "--eval-data", tmp_path / "data")
    said = failure(*add, code=1)
    assert "cars is named as no task of the store" in said
    assert "the new revision is not activated; it is" in said
    assert revision(store) == before
    assert find_next(store) is not None


def test_images_and_texts_are_not_compared(store: Path, text_store: Path, data: Path) -> None:
    assert "reads images and the other texts" in failure("compare", store, text_store, data)
