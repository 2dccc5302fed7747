"""What a release is made with: what it holds is named, and what cannot be known is not said to be well."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mass_serve import __version__
from tests.server_processes import ROOT


def test_the_bill_of_materials_has_what_a_server_runs_on_and_no_tool() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "served_versions")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    versions = dict(line.split("==") for line in printed)
    assert versions.keys() >= {
        "torch",
        "fastapi",
        "starlette",
        "pydantic-core",
        "tokenizers",
        "grpcio",
        "cryptography",
    }
    assert not versions.keys() & {"mass-serve", "pytest", "ruff", "transformers", "zensical"}


@pytest.mark.parametrize(
    ("told", "code", "says"),
    [
        (None, 0, "SKIPPED: no package was audited"),
        ([{"name": "a", "skip_reason": "not found"}], 0, "SKIPPED: no package was audited"),
        ([{"name": "a", "version": "1", "vulns": []}], 0, "0 known vulnerabilities in 1 of 1 packages"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}],
            1,
            "a 1: CVE-1, mended in 2",
        ),
    ],
)
def test_an_audit_that_found_nothing_out_says_so(
    tmp_path: Path, told: list[object] | None, code: int, says: str
) -> None:
    """The advisories are online: where none can be had, that is no good news."""
    content = "raise SystemExit(1)" if told is None else f"print({json.dumps({'dependencies': told})!r})"
    (tmp_path / "pip_audit.py").write_text(content)
    command = [sys.executable, str(ROOT / ".ci" / "audit")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == code, done.stderr
    assert says in done.stdout


def _release(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / ".ci" / "release")], cwd=folder, capture_output=True, text=True, check=False
    )


# Not an optional package: whoever makes a release has it.
@pytest.mark.skipif(shutil.which("git") is None, reason="a release is made of a checkout, where git is")
def test_nothing_is_released_that_is_not_committed_and_described(tmp_path: Path) -> None:
    """Each of these ends it before anything is built."""
    for path in (".ci/release", "mass_serve/__init__.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    (tmp_path / ".ci" / "release").chmod(0o755)
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("## [Unreleased]\n")

    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    git("init")
    assert "the checkout has changes" in _release(tmp_path).stderr
    git("add", "--all")
    git("commit", "--message", "first")
    assert f"CHANGELOG.md has no part [{__version__}]" in _release(tmp_path).stderr
    git("tag", f"v{__version__}")
    assert f"there is a tag v{__version__} already" in _release(tmp_path).stderr


def test_the_hooks_are_tools_of_the_environment() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    called = {hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]}
    makefile = (ROOT / "Makefile").read_text()
    for command in called:
        assert re.search(rf"\$\(BIN\)/{re.escape(command)}", makefile), "make check does the same"
