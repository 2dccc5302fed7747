"""The HTTP service under load, as ratios within one run.

    python -m benchmarks.service [--json FILE] [--store STORE] [--quick] [--seconds N] [--rounds N]
    python -m benchmarks.service --hot-swap N [--json FILE] [--quick]

Starts `mass-serve serve` on a store of ViT-B/32 size with 8 tasks and random weights (`--quick`: of the size
of the demo's encoder; `--store`: any other store) and sends single JPEG images of about 224 pixels, to the
router and to every task by name in turn. A ramp of clients finds the saturation of the closed loop, which is
compared with the engine alone on the same mix; an open loop follows at 50, 80 and 300 % of it.
The load generator runs on the same cores as the server: `generator_share_of_a_core` says how much of one
it took at most. `--hot-swap N` exchanges the revision of one task N times under half load instead.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.engine.stores import build
from benchmarks.random_models import VIT_B_32, write_checkpoints
from benchmarks.service import hot_swap
from benchmarks.service.load import Measurement, Results
from mass_serve.backbone.architecture import Architecture, Block, PatchEmbedding, Pooling
from mass_serve.model_store.build_options import BuildOptions

TASKS = 8
AIMS = {
    "throughput_vs_engine": "at least 0.9",
    "p99_over_p50_half_load": "at most 3",
    "errors_at_80_percent": "0",
    "accepted_p99_over_bound_at_300_percent": "at most 1",
    "rejection_p99_seconds": "at once",
    "fairness_between_tasks": "near 1",
    "failed_during_swaps": "0",
    "p99_with_over_without_swaps": "at most 1.2",
}
QUICK = Architecture(
    PatchEmbedding(32, 8), Block(128, 4, 512, "quick_gelu", 1e-5), depth=6, pooling=Pooling(64)
)


def report(found: Iterable[Results], path: Path | None) -> None:
    """Shows figures as they come, and writes all of them so far, if a file was named."""
    ratios: dict[str, float] = {}
    raw: dict[str, float] = {}
    for results in found:
        ratios |= results.ratios
        raw |= results.raw
        for name, value in (results.ratios | results.raw).items():
            print(f"{name:40s} {value:10.3f}  {AIMS.get(name, '')}", flush=True)
        if path is not None:
            environment = {"torch": torch.__version__, "cores": os.cpu_count()}
            path.write_text(json.dumps(ratios | {"raw": raw, "environment": environment}, indent=2) + "\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--store", type=Path, help="measure this store (not for --hot-swap)")
    parser.add_argument("--quick", action="store_true", help="a small encoder")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison with the engine")
    parser.add_argument("--hot-swap", type=int, metavar="N", help="exchange a task's revision N times")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between two exchanges")
    parser.add_argument("--work", type=Path, help="folder for checkpoints and stores")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped then, too
    if options.store is not None and options.hot_swap is None:
        report(Measurement(options.store, options.seconds, options.rounds).run(), options.json)
        return
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        spec = QUICK if options.quick else VIT_B_32
        pretrained, finetuned = write_checkpoints(Path(folder), spec, TASKS + 1)
        # Swapped is what users have by default; a load of noise is steady in the paper's mode alone.
        mode = "paper" if options.hot_swap is None else BuildOptions().mode
        store, _ = build(Path(folder), pretrained, finetuned[:TASKS], mode)
        if options.hot_swap is None:
            report(Measurement(store, options.seconds, options.rounds).run(), options.json)
            return
        task = finetuned[0].name
        hot_swap.give_history(store, task, finetuned[TASKS], options.hot_swap)
        report(hot_swap.measure(store, task, options.hot_swap, options.seconds, options.pause), options.json)


if __name__ == "__main__":
    main()
