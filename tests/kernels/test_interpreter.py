"""The fused kernels on a CPU, in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interpreter import run_interpreted

FOLDER = Path(__file__).parent / "fused"
ON_A_GPU_ALONE = "test_on_a_gpu.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({path.name for path in FOLDER.glob("test_*.py")} - {ON_A_GPU_ALONE}))
def test_the_fused_kernels_pass_in_the_interpreter(name: str) -> None:
    run_interpreted(FOLDER / name)
