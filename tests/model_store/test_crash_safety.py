"""A crash at any step leaves the old store or the new one, and the next run succeeds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.models import make_suite

ROOT = Path(__file__).parents[2]
# How many files each writes: every one takes a write, an fsync, a rename and an fsync of its folder.
# The third task that is added has the other two cut.
FILES_WRITTEN = {
    "build": 11,
    "add": 8,
    "compact": 6,
    "convert": 6,
    "replace": 4,
    "remove": 2,
    "rollback": 2,
    "prune": 1,
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What every interrupted step of every operation left behind."""
    folder = tmp_path_factory.mktemp("crash")
    make_suite(
        folder / "models",
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=4,
    )
    (folder / "scratch").mkdir()
    program = [sys.executable, "-m", "tests.model_store.crash_runner"]
    ended = subprocess.run(
        [*program, str(folder / "models"), str(folder / "scratch")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("kill", [True, False], ids=["SIGKILL", "disk full"])
@pytest.mark.parametrize("operation", FILES_WRITTEN)
def test_every_step_can_be_the_last(records: list[dict[str, Any]], operation: str, kill: bool) -> None:
    steps = [record for record in records if (record["operation"], record["kill"]) == (operation, kill)]
    assert [record["at"] for record in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= 4 * FILES_WRITTEN[operation]
    reached = steps[0]["after"]["tasks"].keys()
    for record in steps:
        assert record["ended"] == "killed" if kill else "no space is left" in record["ended"]
        if record["found"] != record["before"]:
            # Not the old store: then the whole new one, as the operation leaves it.
            assert record["found"]["tasks"].keys() == reached
            assert record["found"]["damage"] == []
            assert record["found"]["tasks"] == record["after"]["tasks"]
        assert record["after"] != record["before"]
        assert record["after"]["tasks"].keys() == reached
        assert record["after"]["damage"] == []
        assert record["clean"]


def test_both_outcomes_occur(records: list[dict[str, Any]]) -> None:
    """Else the test above would not have looked at the moment that matters."""
    for operation in FILES_WRITTEN:
        steps = [record for record in records if record["operation"] == operation and record["kill"]]
        assert {record["found"] == record["before"] for record in steps} == {True, False}
