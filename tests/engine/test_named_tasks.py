"""Groups of tasks in the place of their names, as callers of an engine give them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mass_serve.engine import Engine, EngineOptions, Question, UnknownTaskError
from mass_serve.model_store.group_revisions import add_to_group
from mass_serve.model_store.revisions import remove_task, rollback_task

SERVED = ("cars", "shoes", "digits")
GROUPS = {"retail": ("cars", "shoes"), "roads": ("cars",), "gone": ()}


@pytest.mark.parametrize(
    ("names", "tasks"),
    [
        (("@retail",), ("cars", "shoes")),
        (("digits", "@retail"), ("digits", "cars", "shoes")),
        (("shoes", "@retail", "@roads", "shoes"), ("shoes", "cars")),
    ],
)
def test_a_group_stands_for_its_tasks_each_of_which_is_there_once(
    names: tuple[str, ...], tasks: tuple[str, ...]
) -> None:
    assert Question(names).among(SERVED, GROUPS) == Question(tasks)


def test_overlapping_groups_are_each_asked_once() -> None:
    question = Question(("@roads", "@retail"), answer="each").among(SERVED, GROUPS)
    assert question.tasks == ("cars", "shoes")
    assert question.answers(3, SERVED) == 6


def test_all_tasks_stay_all() -> None:
    assert Question().among(SERVED, GROUPS) == Question()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("birds", "there is no task 'birds'; there are cars, shoes, digits"),
        ("@birds", "there is no group '@birds'; the groups are: @retail, @roads, @gone"),
        ("@@retail", "there is no group '@@retail'"),
        ("@", "there is no group '@'"),
        ("@gone", "none of the tasks of the group @gone is served now"),
        ("retail", "there is no task 'retail'"),
    ],
)
def test_names_of_nothing(name: str, sentence: str) -> None:
    with pytest.raises(UnknownTaskError, match=sentence):
        Question(("cars", name)).among(SERVED, GROUPS)


def test_without_groups_it_is_said_that_there_are_none() -> None:
    with pytest.raises(UnknownTaskError, match="the groups are: none"):
        Question(("@retail",)).among(SERVED, {})


def test_of_many_tasks_a_sentence_names_some() -> None:
    with pytest.raises(UnknownTaskError, match=r"there are t0, .*, t19 and 480 more$"):
        Question(("birds",)).among([f"t{number}" for number in range(500)], {})


def test_an_answer_by_group_is_the_one_by_its_tasks(store: Path) -> None:
    add_to_group(store, "numbers", ["street", "digits"])
    engine, images = Engine.load(str(store)), [Image.new("RGB", (32, 32), "red")]
    [by_group] = engine.classify(images, tasks=["@numbers"])
    [by_names] = engine.classify(images, tasks=["digits", "street"])
    assert by_group.task == by_names.task
    assert by_group.coefficients == by_names.coefficients
    each = engine.classify(images, tasks=["@numbers", "signs"], answer="each")
    assert [answer.task for answer in each] == ["street", "digits", "signs"]


def test_a_task_that_is_not_served_is_not_in_its_groups(store: Path) -> None:
    add_to_group(store, "numbers", ["street", "digits"])
    assert Engine.open(str(store), EngineOptions(), without=["street"]).groups == {"numbers": ("digits",)}
    remove_task(store, "street")
    assert Engine.load(str(store)).groups == {"numbers": ("digits",)}
    rollback_task(store, "street")
    assert Engine.load(str(store)).groups == {"numbers": ("street", "digits")}
