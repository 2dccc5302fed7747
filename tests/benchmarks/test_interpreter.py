"""The GPU benchmarks' own logic on a CPU, in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interpreter import InterpretedRuns

FOLDER = Path(__file__).parent / "fused"


@pytest.mark.slow
@pytest.mark.parametrize("fused_tests", sorted(FOLDER.glob("test_*.py")), ids=lambda path: path.name)
def test_the_gpu_benchmarks_run_in_the_interpreter(fused_tests: Path, interpreted: InterpretedRuns) -> None:
    interpreted.check(fused_tests)
