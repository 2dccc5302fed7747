"""The matrix libraries are told to give rows the same bits, unless the user has told them otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mass_serve.kernels.matrix_libraries import VARIABLES
from tests.server_processes import ROOT


@pytest.mark.parametrize("own", [{}, {"ONEDNN_MAX_CPU_ISA": "DEFAULT"}])
def test_what_the_user_has_set_is_kept(own: dict[str, str]) -> None:
    others = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    program = (
        "import json, os, mass_serve.kernels; from mass_serve.kernels.matrix_libraries import VARIABLES;"
        "print(json.dumps({name: os.environ[name] for name in VARIABLES}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=others | own, cwd=ROOT, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == VARIABLES | own


@pytest.mark.parametrize("folder", ["kernels", "backbone", "router", "engine", "jobs", "evaluation"])
def test_they_are_told_when_a_folder_that_computes_is_imported(folder: str) -> None:
    """Its names may be asked for later, and whoever imported it may have made a product by then."""
    others = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    program = f"import json, os, mass_serve.{folder}; print(json.dumps(dict(os.environ)))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=others, cwd=ROOT, capture_output=True, check=True
    )
    assert json.loads(done.stdout).items() >= VARIABLES.items()
