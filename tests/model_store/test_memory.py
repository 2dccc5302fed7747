"""Building streams: its memory is bounded by two models and the blocks, whatever the number of tasks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mass_serve.model_store.store import Store
from tests.models import make_suite

ROOT = Path(__file__).parents[2]
NUM_TASKS = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of 42 MB each, large beside the noise of a process."""
    folder = tmp_path_factory.mktemp("memory")
    names = tuple(f"task{index}" for index in range(NUM_TASKS))
    make_suite(
        folder,
        names,
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=4,
        projection_dim=128,
    )
    return folder


def test_peak_is_below_two_models_and_the_blocks(models: Path, tmp_path: Path) -> None:
    model_bytes = (models / "pretrained" / "model.safetensors").stat().st_size
    peaks = {}
    for count in (2, NUM_TASKS):
        program = [sys.executable, "-m", "tests.model_store.build_memory"]
        ended = subprocess.run(
            [*program, str(models), str(tmp_path / str(count)), str(count)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[count] = int(ended.stdout)
    store = Store.open(tmp_path / str(NUM_TASKS))
    blocks_bytes = sum(store.files.size(task.experts_file) for task in store.manifest.tasks)
    assert model_bytes > 40e6
    assert peaks[NUM_TASKS] < 2 * model_bytes + blocks_bytes
    # And nothing that grows with the number of tasks: four models alone would be 170 MB.
    assert peaks[NUM_TASKS] < peaks[2] + model_bytes
