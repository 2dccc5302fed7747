"""The fused kernels on a CPU, in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interpreter import InterpretedRuns

FOLDER = Path(__file__).parent / "fused"
ON_A_GPU_ALONE = FOLDER / "test_on_a_gpu.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "fused_tests", sorted({*FOLDER.glob("test_*.py")} - {ON_A_GPU_ALONE}), ids=lambda path: path.name
)
def test_the_fused_kernels_pass_in_the_interpreter(fused_tests: Path, interpreted: InterpretedRuns) -> None:
    interpreted.check(fused_tests)
