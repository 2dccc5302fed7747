"""What the README and the pages show is what happens, and what they name is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.http_overhead import start_server
from docs.tables import metric_rows
from mass_serve.cli.app import COMMANDS
from mass_serve.server.settings import Settings
from tests.docs.pages import EVERYTHING, README, ROOT, TEXTS, blocks, commands

DEMO_STORE = ROOT / "server" / "demo_store"
# What may not be here: a client made by a command of the pages, and KServe's. Tests in tests/server/protocols
# have them ask a server.
OPTIONAL = {"mass_client", "kserve"}
# Libraries of examples that a user brings, beside our own and Python's.
FOREIGN = {"openai", "tritonclient", "huggingface_hub", "numpy", "PIL"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process, address = start_server(DEMO_STORE)
    yield address
    process.terminate()
    process.wait(60)
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "getting-started.md"], ids=lambda path: path.name)
def test_the_curl_gives_the_answer_that_is_shown(address: str, page: Path) -> None:
    (command,) = [line for line in commands(TEXTS[page]) if line.startswith("curl --data-binary ")]
    (shown,) = [block for block in blocks("json", TEXTS[page]) if '"results"' in block]
    _assert_alike(_ask(command, address), json.loads(shown))


def _ask(command: str, address: str) -> Any:
    """What `curl --data-binary @FILE URL` does, on a machine that may have no curl."""
    curl, flag, file, url = shlex.split(command)
    assert (curl, flag, file[0]) == ("curl", "--data-binary", "@")
    data = (ROOT / file[1:]).read_bytes()
    return httpx.post(url.replace("http://127.0.0.1:8000", address), content=data).raise_for_status().json()


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


def _command(words: list[str]) -> Any:
    """The command that some words begin with. Raises KeyError for one that there is not."""
    found: Any = COMMANDS[words[0]].load(words[0])
    for word in words[1:]:
        if not hasattr(found, "commands"):
            break
        found = found.commands[word]
    return found


def test_every_command_and_option_of_the_pages_exists() -> None:
    lines = [line for line in commands() if re.match(r"mass-serve\b(?!:)", line)]
    assert len(lines) > 20
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words[0].startswith("-"):
            continue
        options = {name for one in _command(words).params for name in (*one.opts, *one.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_every_command_that_the_text_names_exists() -> None:
    mentioned = set(re.findall(r"`mass-serve (task [\w-]+|[a-z-]+)", EVERYTHING))
    assert {"eval", "serve", "task rollback"} <= mentioned
    for words in mentioned:
        _command(words.split())


def test_the_settings_that_the_text_names_exist() -> None:
    mentioned = set(re.findall(r"\bMASS_([A-Z][A-Z_]*[A-Z])\b", EVERYTHING))
    assert {"HOST", "MODE"} <= mentioned
    assert {name.lower() for name in mentioned} <= set(Settings.model_fields)


def test_the_metrics_that_the_text_names_exist() -> None:
    mentioned = set(re.findall(r"`(mass_(?!serve)\w+)`", EVERYTHING))
    assert len(mentioned) > 20
    assert mentioned <= {name.strip("`") for name, *_ in metric_rows()}


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    mentioned = {target for line in commands() for target in re.findall(r"^make ([\w-]+)", line)}
    mentioned |= set(re.findall(r"`make ([\w-]+)", EVERYTHING))
    assert {"serve", "test", "docs", "demo"} <= mentioned
    for target in mentioned:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_modules_that_are_run_exist() -> None:
    for module in set(re.findall(r"python -m ([\w.]+)", EVERYTHING)):
        assert importlib.util.find_spec(module) is not None, module


def test_the_python_examples_import_what_there_is() -> None:
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                if (node.module or "").partition(".")[0] in OPTIONAL:
                    continue
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), block
            elif isinstance(node, ast.Import):
                imported = {alias.name.partition(".")[0] for alias in node.names}
                assert imported <= FOREIGN | sys.stdlib_module_names, block


def test_the_files_that_the_text_names_exist() -> None:
    """Paths that begin with a folder of the repository, without wildcards."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    # What the commands of these pages write.
    written = re.compile(r"benchmarks/results/\w+_gpu\.json|docker/\.env")
    named = {
        word for word in re.findall(r"`([\w./-]+/[\w./-]*)`", EVERYTHING) if word.split("/")[0] in folders
    }
    assert len(named) > 20
    missing = sorted(word for word in named if not written.match(word) and not (ROOT / word).exists())
    assert missing == []
