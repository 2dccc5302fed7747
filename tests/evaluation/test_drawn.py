"""Some of many labelled inputs: of every class, whatever the numbers in the names of files mean."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from examples.demo_suite.gallery import EXAMPLES
from mass_serve.engine import Engine
from mass_serve.evaluation import EvaluationData, files_of
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.inputs import Item, Labelled, drawn
from tests.examples.test_demo_store import DEMO_STORE

COLOURS = 5
INPUTS = [
    Labelled(task, (label,), Item(f"{task}/{label}/{number:02}.png"))
    for task in ("shape", "size")
    for label in range(3)
    for number in range(30)
]


def test_classes_are_drawn_evenly_and_what_numbers_mean_at_random() -> None:
    found = drawn(INPUTS, 36)
    assert Counter((one.task, one.target) for one in found) == {
        (task, (label,)): 12 for task in ("shape", "size") for label in range(3)
    }
    colours = Counter(int(one.item.place[-6:-4]) % COLOURS for one in found)
    assert len(colours) == COLOURS
    assert len({one.item.place for one in found}) == len(found)


def test_the_same_are_drawn_in_whatever_order_they_are_listed() -> None:
    assert drawn(INPUTS[::-1], 10) == drawn(INPUTS, 10)


def test_all_are_taken_where_there_are_fewer() -> None:
    assert sorted(one.item.place for one in drawn(INPUTS, 1_000)) == sorted(one.item.place for one in INPUTS)


def test_an_evaluation_may_have_some_of_the_inputs() -> None:
    engine = Engine.load(str(DEMO_STORE))
    labels = of_whole_inputs(engine.tasks)
    data = EvaluationData(Path(EXAMPLES / "evaluation"), labels, files_of(engine), most=7)
    assert {data.count(task) for task in data.tasks} == {7}
