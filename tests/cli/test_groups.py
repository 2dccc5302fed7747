"""Groups of tasks on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mass_serve.model_store.store import Store
from tests.cli.test_stores import failure, run, run_json


def test_groups_are_made_shown_and_removed(store: Path) -> None:
    assert run("group", "list", store)[0] == f"{store} has no groups\n"
    made = run_json("group", "add", store, "retail", "digits", "street")
    assert made["groups"] == {"retail": ["digits", "street"]}
    assert made["store_revision"] == Store.open(store).manifest.store_revision
    assert run("group", "add", store, "roads", "signs")[0] == (
        "group retail: digits, street\ngroup roads: signs\n"
    )
    assert "\ngroup retail: digits, street\n" in run("inspect", store)[0]
    assert run_json("inspect", store)["manifest"]["groups"]["roads"] == ["signs"]
    run("task", "remove", store, "street")
    assert run("group", "list", store)[0].splitlines()[0] == "group retail: digits, street (removed)"
    assert run_json("group", "remove", store, "retail", "street")["groups"]["retail"] == ["digits"]
    assert run("group", "remove", store, "retail")[0] == "group roads: signs\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["add", "retail", "cars"], "there is no task 'cars'"),
        (["add", "@retail", "digits"], "in requests alone @ stands before it"),
        (["remove", "retail"], "there is no group 'retail'"),
    ],
)
def test_mistakes(store: Path, arguments: list[str], sentence: str) -> None:
    verb, *rest = arguments
    assert sentence in failure("group", verb, store, *rest)


def test_a_signed_store_has_to_be_signed_again(store: Path) -> None:
    (store / "manifest.json.sig").write_bytes(bytes(64))
    assert "sign it again" in run("group", "add", store, "retail", "digits")[1]
    assert not run("group", "list", store)[1]


def test_inspect_shows_the_first_of_many_tasks(many_tasks: Path) -> None:
    shown = run("inspect", many_tasks)[0]
    assert len(shown.splitlines()) < 70
    assert "450 more tasks, which --all and --json show; of all 500: 2,000 labels, ranks 1 to 1" in shown
    assert re.search(r"^group even: .*, task-038 and 230 more$", shown, re.MULTILINE)
    assert "task-499" not in shown
    assert "task-499" in run("inspect", many_tasks, "--all")[0]
    assert len(run_json("inspect", many_tasks)["manifest"]["tasks"]) == 500
