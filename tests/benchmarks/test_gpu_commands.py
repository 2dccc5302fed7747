"""The commands that need a GPU say so, and the figures that have targets come from the grid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
COMMANDS = ["benchmarks.engine_gpu", "benchmarks.kernel_times", "benchmarks.tune_kernels"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_gpu_it_ends_with_exit_code_2(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "NVIDIA GPU" in done.stderr


def test_the_gpu_benchmarks_import_with_torch_triton_and_transformers_alone() -> None:
    code = f"import sys, {', '.join(COMMANDS)}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert {"torch", "triton"} <= loaded
    assert not loaded & {"pydantic", "fastapi", "fsspec", "typer", "structlog", "prometheus_client"}


def test_the_figures_with_targets_are_in_the_grid() -> None:
    from benchmarks import engine_gpu

    run = engine_gpu.Run(torch.device("cpu"), torch.float32)
    for tasks in engine_gpu.TASKS:
        at = f"{engine_gpu.HEADLINE_MODEL} T {tasks} batch {engine_gpu.HEADLINE_BATCH}"
        names = ["base only", "both passes", "materialised in 8 sets"]
        names += [f"low rank of {k} in {n} sets" for k in engine_gpu.SET_SIZES for n in engine_gpu.SETS]
        run.ratios |= {f"{at} {name}": 1.5 for name in names}
        run.raw |= {f"{at} {name}": 2.0 for name in names}
    figures = engine_gpu.headline(run)
    assert figures.pop("throughput_20_sets_vs_1") == 1.0
    assert set(figures.values()) == {1.5}
    assert len(figures) == 7
