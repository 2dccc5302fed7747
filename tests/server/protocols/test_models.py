"""Which models protocols of models show, and what each is."""

from __future__ import annotations

from typing import Any

import pytest

from mass_serve.model_store.format.entries import HeadSpec
from mass_serve.server.errors import BadRequestError, NotFoundError
from mass_serve.server.protocols.models import find_model, model_names
from tests.server.fakes import FakeEngine, task_entry, words

GROUPS = {"both": ("guard", "domain"), "mixed": ("guard", "pii"), "alone": ("pii",), "unloaded": ()}


@pytest.fixture
def engine() -> FakeEngine:
    """Of two tasks of whole texts and one of their tokens."""
    tasks = {name: task_entry(name, ("a", "b", "c")[:size]) for name, size in (("guard", 2), ("domain", 3))}
    of_tokens = HeadSpec(kind="linear", each_token=True)
    tasks["pii"] = task_entry("pii", ("O", "PER")).model_copy(update={"head": of_tokens})
    return FakeEngine(tasks=tasks, groups=GROUPS, tokenizer=words())


def test_a_group_is_a_model_where_its_tasks_can_be_chosen_among(engine: FakeEngine) -> None:
    assert model_names(engine) == ["auto", "guard", "domain", "pii", "@both", "@alone"]


def test_what_a_model_is(engine: FakeEngine) -> None:
    def facts(name: str) -> dict[str, Any]:
        model = find_model(engine, name, None)
        asked = model.question(None).tasks
        return {"version": model.version, "asked": asked, "task": model.task, "width": model.widest_head}

    of_store = {"version": "fake-1", "task": None}
    assert facts("auto") == {**of_store, "asked": None, "width": 3}
    assert facts("@both") == {**of_store, "asked": ("guard", "domain"), "width": 3}
    assert facts("guard") == {"version": "r1", "task": "guard", "asked": ("guard",), "width": 2}
    assert facts("@alone") == {**of_store, "asked": ("pii",), "width": 2}
    assert find_model(engine, "@alone", None).each_token
    assert find_model(engine, "@both", None).gives_residuals
    assert not find_model(engine, "@alone", None).gives_residuals, "of one task nothing is routed"


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("cars", NotFoundError, "There is no model 'cars'"),
        ("@cars", NotFoundError, "There is no group '@cars'; the groups are: @both, @mixed"),
        ("@unloaded", NotFoundError, "None of the tasks of the group @unloaded is served now"),
        ("@mixed", BadRequestError, "'pii' classifies tokens, and there is no choosing"),
    ],
)
def test_what_is_no_model(engine: FakeEngine, name: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        find_model(engine, name, None)


def test_another_version_of_a_group(engine: FakeEngine) -> None:
    assert find_model(engine, "@both", "fake-1").name == "@both"
    with pytest.raises(NotFoundError, match="'fake-1' is"):
        find_model(engine, "@both", "fake-0")


def test_a_mode_that_there_is_not(engine: FakeEngine) -> None:
    mode: Any = "quick"
    with pytest.raises(BadRequestError, match="'quick'"):
        find_model(engine, "@both", None).question(mode)
