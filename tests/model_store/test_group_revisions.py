"""Groups of a store's tasks: made, changed, and what becomes of them when tasks come and go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import TaskError
from mass_serve.model_store.format.groups import Groups
from mass_serve.model_store.group_revisions import add_to_group, remove_from_group
from mass_serve.model_store.revisions import add_task, prune_store, remove_task, rollback_task
from mass_serve.model_store.store import Store
from tests.models import Suite


def groups(store: Path) -> dict[str, tuple[str, ...]]:
    return Store.open(store).manifest.groups


def test_each_change_is_a_revision_of_the_store_and_of_nothing_else(store: Path) -> None:
    before = Store.open(store).manifest
    made = add_to_group(store, "retail", ["street", "street"]).manifest
    assert made.groups == {"retail": ("street",)}
    assert (made.tasks, made.files) == (before.tasks, before.files)
    grown = add_to_group(store, "retail", ["digits", "street"]).manifest
    assert grown.groups == {"retail": ("street", "digits")}, "in the order in which they came"
    shrunk = remove_from_group(store, "retail", ["street"]).manifest
    assert shrunk.groups == {"retail": ("digits",)}
    gone = remove_from_group(store, "retail").manifest
    assert gone.groups == groups(store) == {}
    assert len({one.store_revision for one in (before, made, grown, shrunk, gone)}) == 5


def test_a_group_whose_last_task_is_taken_out_is_gone(store: Path) -> None:
    add_to_group(store, "retail", ["street"])
    assert remove_from_group(store, "retail", ["street"]).manifest.groups == {}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda store: add_to_group(store, "retail", []), "must name at least one task"),
        (
            lambda store: add_to_group(store, "retail", ["cars"]),
            "there is no task 'cars' in .* has digits",
        ),
        (lambda store: add_to_group(store, "retail", ["@food"]), "has '@food'; name the tasks of that group"),
        (lambda store: add_to_group(store, "@retail", ["digits"]), "'@retail' must be 1 to 64 of"),
        (lambda store: add_to_group(store, "digits", ["street"]), "has the name of the task digits"),
        (lambda store: add_to_group(store, "FOOD", ["street"]), "food and FOOD differ in their case"),
        (lambda store: remove_from_group(store, "retail"), "no group 'retail' in .*; its groups: food"),
        (lambda store: remove_from_group(store, "food", ["street"]), "'street' is not in the group food"),
    ],
)
def test_mistakes_change_nothing(store: Path, change: Callable[[Path], object], sentence: str) -> None:
    before = add_to_group(store, "food", ["digits"]).manifest
    with pytest.raises(TaskError, match=sentence):
        change(store)
    assert Store.open(store).manifest == before


def test_a_removed_task_is_in_its_groups_again_when_it_is_brought_back(store: Path) -> None:
    add_to_group(store, "retail", ["digits", "street"])
    remove_task(store, "street")
    assert groups(store) == {"retail": ("digits", "street")}
    rollback_task(store, "street")
    assert groups(store) == {"retail": ("digits", "street")}


def test_a_task_that_is_pruned_leaves_its_groups(store: Path) -> None:
    add_to_group(store, "retail", ["digits", "street"])
    add_to_group(store, "roads", ["street"])
    remove_task(store, "street")
    prune_store(store)
    assert groups(store) == {"retail": ("digits",)}


def test_no_task_takes_a_groups_name(suite: Suite, store: Path) -> None:
    add_to_group(store, "signs", ["digits"])
    with pytest.raises(TaskError, match="task signs cannot be added: there is a group signs"):
        add_task(store, suite.tasks[2])


def test_a_build_may_name_groups(suite: Suite, tmp_path: Path) -> None:
    def built(name: str, groups: Groups) -> Store:
        return build(suite.pretrained, suite.tasks[:2], tmp_path / name, BuildOptions(), groups=groups)

    named = built("named", {"all": ("digits", "street")})
    assert groups(tmp_path / "named") == {"all": ("digits", "street")}
    assert built("plain", {}).manifest.tasks == named.manifest.tasks
    with pytest.raises(TaskError, match=r"groups.all: names 'signs', and the store has no such task"):
        built("wrong", {"all": ("signs",)})
    assert not (tmp_path / "wrong").exists(), "it is said before anything is written"


def test_other_groups_are_another_build(suite: Suite, tmp_path: Path) -> None:
    """Else one that was killed would be finished with the groups that it was begun with."""
    groups: list[Groups] = [{}, {"all": ("digits",)}, {"all": ("street",)}]
    revisions = set()
    for place, named in enumerate(groups):
        out, options = tmp_path / str(place), BuildOptions()
        built = build(suite.pretrained, suite.tasks[:2], out, options, groups=named)
        revisions.add(built.manifest.store_revision)
    assert len(revisions) == 3
