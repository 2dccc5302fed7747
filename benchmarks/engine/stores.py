"""Stores of models with random weights, as `mass-serve build` makes them, and what they take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from mass_serve.model_store.store import Store


def build(folder: Path, pretrained: Path, finetuned: list[Path], mode: str = "paper") -> tuple[Path, float]:
    """A store of those tasks, built by the command, and the seconds it took.

    In the paper's mode the cost of an image does not depend on what is in it, and these images are noise.
    """
    out = folder / f"store{len(finetuned)}"
    tasks = [argument for path in finetuned for argument in ("--task", f"{path.name}={path}")]
    command = [
        sys.executable,
        "-m",
        "mass_serve.cli",
        "build",
        "--mode",
        mode,
        "--format",
        "bfloat16",  # as in all figures that are recorded; benchmarks.packed_speed has the other formats
        "--pretrained",
        str(pretrained),
        *tasks,
    ]
    start = time.perf_counter()
    subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    return out, time.perf_counter() - start


def store_ratio(store: Path, pretrained: Path) -> float:
    """Bytes of a store over those of the float32 encoder, without heads and a merged base.

    Only the paper's mode has a merged base, one encoder more, where that is slow to rebuild.
    """
    manifest = Store.open(store).manifest
    apart = {manifest.merged_base_file, *(task.head_file for task in manifest.tasks)}
    files = [path for path in manifest.all_files() if path not in apart]
    size = sum((store / path).stat().st_size for path in [*files, "manifest.json"])
    return size / (pretrained / "model.safetensors").stat().st_size


def memory(store: Path) -> dict[str, float]:
    """Bytes of a served store, its tensors and the process beyond its imports, and seconds of its load."""
    command = [sys.executable, "-m", "benchmarks.resident_memory", str(store)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
