"""What T tasks take: memory, the time to load them, and room on the disk.

    python -m benchmarks.tasks.residence [--json FILE] [--tasks 2,8,20,100,500] [--work FOLDER]

Stores are those of `benchmarks.random_adapters`: LoRA-like tasks of rank 16 over CLIP ViT-B/32. Each is
loaded in a process of its own (`benchmarks.resident_memory`), once as it is and once with room for few tasks
in memory. Seconds are a processor's. Takes a quarter of an hour and 4 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_adapters import random_adapter_store

RANK = 16
FEW = 256 << 20  # bytes for the weights of tasks


def loaded(store: Path, *options: str) -> dict[str, Any]:
    """Returns what `benchmarks.resident_memory` finds."""
    command = [sys.executable, "-m", "benchmarks.resident_memory", str(store), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(store: Path) -> dict[str, Any]:
    """The figures of one store."""
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    few = loaded(store, "--resident-task-bytes", str(FEW))
    return {"store_bytes": size, "all": loaded(store), "few": few}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--tasks", default="2,8,20,100,500", help="numbers of tasks, with commas between")
    parser.add_argument("--work", type=Path, help="a folder for the stores, which are kept there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        found: dict[str, object] = {"torch": torch.__version__, "rank": RANK, "few_bytes": FEW}
        for tasks in map(int, asked.tasks.split(",")):
            store = work / f"store{tasks}"
            if not (store / "manifest.json").exists():
                random_adapter_store(store, tasks, RANK)
            found[str(tasks)] = measure(store)
            print(tasks, json.dumps(found[str(tasks)]), flush=True)
            if asked.json is not None:
                asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
