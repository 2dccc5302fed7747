"""`python -m examples.suites NAME --out DIR`: one suite from nothing.

DIR/store is the store, DIR/evaluation and DIR/tuning hold held-out pictures as `mass-serve eval` takes them,
DIR/ood pictures that no task covers; DIR/pretrained, DIR/tasks, DIR/heads and DIR/labels are what the store
was built from. What an earlier run finished is used again: to fine-tune another encoder, put it into
DIR/pretrained first.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from examples.demo_suite.fonts import FontsMissingError, require_fonts
from examples.demo_suite.train import THREADS, report
from examples.suites.suite import SUITES, make_suite


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when all is made, 2 when fonts are missing."""
    parser = argparse.ArgumentParser(prog="python -m examples.suites", description=__doc__)
    parser.add_argument("name", choices=SUITES, help="which suite")
    parser.add_argument("--out", type=Path, required=True, help="folder for the store, pictures and models")
    parser.add_argument("--threads", type=int, default=THREADS, help="processor threads to train with")
    chosen = parser.parse_args(arguments)
    begun = time.monotonic()
    try:
        require_fonts()
    except FontsMissingError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(chosen.threads)
    store = make_suite(SUITES[chosen.name], chosen.out, report)
    minutes, worked = (time.monotonic() - begun) / 60, time.process_time() / 60
    report(f"Built {store} in {minutes:.1f} minutes, {worked:.1f} of them processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
