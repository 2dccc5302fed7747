"""Runs tests in forked processes, without paying for the start of pytest and torch each time.

The parent has imported what tests need of others, and nothing of ours: a child imports that, with its change.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

# Imported once. What is missing here is only imported more often.
HEAVY = ["torch", "numpy", "PIL.Image", "pydantic", "pydantic_settings", "fastapi", "httpx", "pytest"]
HEAVY += ["hypothesis", "structlog", "fsspec", "safetensors.torch", "prometheus_client", "uvicorn", "typer"]
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider")
OURS = ("mass_serve", "tests", "benchmarks", "examples", "docs")


def import_heavy() -> None:
    """Imports what is large. No thread may be started by it: a forked process would not have it."""
    for name in HEAVY:
        importlib.import_module(name)
    gc.freeze()  # pytest collects garbage again and again, in all that is imported here


def passes(folder: Path, tests: Sequence[str], seconds: float, report: Path) -> bool:
    """Tells whether the tests of the checkout in `folder` pass; hanging for longer than `seconds` is a no."""
    child = os.fork()
    if child == 0:
        _be_pytest(folder, tests, report)
    try:
        return _ended(child, time.monotonic() + seconds) == 0
    finally:
        # Whatever servers the tests have left, and the child where it hangs.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


def _ended(child: int, deadline: float) -> int | None:
    """Waits for the exit status of a process; None past the deadline."""
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _be_pytest(folder: Path, tests: Sequence[str], report: Path) -> None:
    """Runs the tests in this process, which it ends."""
    code = 1
    try:
        os.setsid()
        output = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = sys.path[0] = str(folder)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = (
            "1"  # importing schemathesis takes longer than most tests
        )
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
        import pytest

        code = int(pytest.main([*OPTIONS, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
