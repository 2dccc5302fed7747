"""A next revision beside the store: made without a trace, promoted at once, or discarded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mass_serve.model_store.errors import StoreError, TaskError
from mass_serve.model_store.format.file_names import MANIFEST_FILE, SIGNATURE_FILE
from mass_serve.model_store.next_revision import discard, promote
from mass_serve.model_store.next_store import find_next, next_url
from mass_serve.model_store.revisions import add_task, prune_store, remove_task, rollback_task
from mass_serve.model_store.store import Store
from tests.models import Suite


def content(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def names(store: Store) -> list[str]:
    return [task.name for task in store.manifest.tasks]


def test_a_next_revision_is_seen_by_nobody_until_it_is_promoted(suite: Suite, store: Path) -> None:
    before = Store.open(store)
    made = add_task(next_url(store), suite.tasks[2])
    assert names(made) == ["digits", "street", "signs"]
    assert Store.open(store).manifest == before.manifest
    found = find_next(store)
    assert found is not None
    assert found.manifest == made.manifest
    assert Store.open_files(found.files).verify() == []
    promoted = promote(store, made.manifest.store_revision)
    assert promoted.manifest == Store.open(store).manifest == made.manifest
    assert find_next(store) is None
    assert promoted.verify() == []


def test_changes_of_a_next_revision_add_up(suite: Suite, store: Path) -> None:
    add_task(next_url(store), suite.tasks[2])
    remove_task(next_url(store), "digits")
    assert names(Store.open(store)) == ["digits", "street"]
    assert names(promote(store)) == ["street", "signs"]
    assert names(rollback_task(store, "digits")) == ["street", "signs", "digits"]


def test_discarding_leaves_no_byte(suite: Suite, store: Path) -> None:
    before = content(store)
    add_task(next_url(store), dataclasses.replace(suite.tasks[2], name="digits"), replace=True)
    assert content(store).keys() > before.keys()
    discard(store)
    assert content(store) == before | {".lock": b""}


def test_a_failed_change_of_a_next_revision_leaves_it(suite: Suite, store: Path) -> None:
    made = add_task(next_url(store), suite.tasks[2])
    before = content(store)
    with pytest.raises(TaskError, match="signs exists already"):
        add_task(next_url(store), suite.tasks[2])
    assert content(store) == before
    assert promote(store).manifest == made.manifest


def test_what_has_changed_since_is_not_undone(suite: Suite, store: Path) -> None:
    add_task(next_url(store), suite.tasks[2])
    now = remove_task(store, "street")
    assert find_next(store) is None
    with pytest.raises(StoreError, match="was changed since its next revision was made: discard that"):
        promote(store)
    assert Store.open(store).manifest == now.manifest
    discard(store)
    assert not [path for path in content(store) if path.startswith(("next-", "tasks/signs"))]
    with pytest.raises(StoreError, match="has no next revision: make one"):
        discard(store)


def test_another_next_revision_than_was_looked_at_is_not_promoted(suite: Suite, store: Path) -> None:
    first = add_task(next_url(store), suite.tasks[2])
    remove_task(next_url(store), "street")
    before = (store / MANIFEST_FILE).read_bytes()
    with pytest.raises(StoreError, match=r"#next was changed meanwhile, from revision \w+ to \w+: compare"):
        promote(store, first.manifest.store_revision)
    assert (store / MANIFEST_FILE).read_bytes() == before


def test_a_promotion_that_was_interrupted_is_finished(suite: Suite, store: Path) -> None:
    """The manifest was replaced, and the signature not yet."""
    made = add_task(next_url(store), suite.tasks[2])
    (following,) = store.glob("next-*.json")
    (store / f"{following.name}.sig").write_bytes(b"of the next one")
    (store / SIGNATURE_FILE).write_bytes(b"of the one before")
    (store / MANIFEST_FILE).write_bytes(following.read_bytes())
    assert promote(store).manifest == made.manifest
    assert (store / SIGNATURE_FILE).read_bytes() == b"of the next one"
    assert not [*store.glob("next-*")]
    with pytest.raises(StoreError, match="has no next revision"):
        promote(store)


def test_pruning_waits_for_the_next_revision(suite: Suite, store: Path) -> None:
    add_task(next_url(store), dataclasses.replace(suite.tasks[2], name="digits"), replace=True)
    for url in (store, next_url(store)):
        with pytest.raises(StoreError, match="#next has files of earlier revisions: promote or discard it"):
            prune_store(url)
    promote(store)
    with pytest.raises(StoreError, match="#next has files of earlier revisions"):
        prune_store(next_url(store))
    assert prune_store(store)
    assert Store.open(store).verify() == []


def test_there_is_no_next_revision_of_no_store(tmp_path: Path, suite: Suite) -> None:
    for ask in (promote, discard, find_next):
        with pytest.raises(StoreError, match=f"there is no store at {tmp_path}/none: build one"):
            ask(tmp_path / "none")
    with pytest.raises(StoreError, match="there is no store at"):
        add_task(next_url(tmp_path / "none"), suite.tasks[2])
    assert not [*tmp_path.iterdir()]
