"""What the README shows is what happens."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.http_overhead import start_server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO_STORE = ROOT / "server" / "demo_store"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process, address = start_server(DEMO_STORE)
    yield address
    process.terminate()
    process.wait(60)
    assert process.stdout is not None
    process.stdout.close()


def _block(language: str, containing: str) -> str:
    """The code block of the README that contains a text."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return found


def test_the_curl_gives_the_answer_that_is_shown(address: str) -> None:
    command = shlex.split(_block("sh", "curl ").replace("http://127.0.0.1:8000", address))
    done = subprocess.run([*command, "--silent"], capture_output=True, check=True, cwd=ROOT)
    _assert_alike(json.loads(done.stdout), json.loads(_block("json", '"results"')))


def _assert_alike(given: Any, shown: Any, key: str = "") -> None:
    """Equal but for the request's id, and floats to four digits (other machines round differently)."""
    if key == "id":
        return
    if isinstance(shown, dict):
        assert given.keys() == shown.keys()
        for name in shown:
            _assert_alike(given[name], shown[name], name)
    elif isinstance(shown, list):
        assert len(given) == len(shown)
        for one, other in zip(given, shown, strict=True):
            _assert_alike(one, other)
    elif isinstance(shown, float):
        assert given == pytest.approx(shown, abs=1e-4)
    else:
        assert given == shown


def test_every_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"^mass-serve (task \w+|\w+)", README, flags=re.MULTILINE))
    assert {"build", "serve", "eval", "classify", "task add", "task rollback"} <= named
    for command in named:
        arguments = [sys.executable, "-m", "mass_serve.cli", *command.split(), "--help"]
        assert subprocess.run(arguments, capture_output=True, cwd=ROOT).returncode == 0, command


def test_the_settings_of_the_readme_are_the_settings() -> None:
    from mass_serve.server.settings import Settings

    table = README.split("## Configuration")[1].split("##")[0]
    named = {
        name
        for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    }
    assert named
    assert named <= set(Settings.model_fields)


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make (install|serve|test|check|demo)\b", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_row_of_a_table_has_its_cells() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", README, flags=re.MULTILINE)
    assert len(tables) > 8
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table[:200]


def test_the_table_of_separability_is_that_of_the_recorded_run() -> None:
    path = ROOT / "benchmarks" / "results" / "separability_twenty_tasks_demo.json"
    whole, *pairs = json.loads(path.read_text())
    for one in (whole, *pairs):
        what = "all twenty" if one is whole else " and ".join(one["tasks"])
        figures = (*one["routed"].values(), one["trained"])
        row = f"| {what} | {one['images']:,} | {' | '.join(f'{figure:.3f}' for figure in figures)} |"
        assert row in README, row


def test_the_figures_are_those_of_the_recorded_runs() -> None:
    results = ROOT / "benchmarks" / "results"
    recorded = {k: v for path in results.glob("*_cpu.json") for k, v in json.loads(path.read_text()).items()}
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \| (-?[\d.]+) \|", README, flags=re.MULTILINE)
    assert len(rows) > 10
    for key, shown in rows:
        assert shown == f"{recorded[key]:.3f}", key
