"""`python -m examples.suites NAME --out DIR`: one suite.

DIR/store is the store, DIR/evaluation and DIR/tuning hold held-out pictures or texts as `mass-serve eval`
takes them, DIR/ood some that no task covers; the rest is what the store was built from. What an earlier run
finished is used again: to fine-tune another encoder for a drawn suite, put it into DIR/pretrained first.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from transformers.utils import logging

from examples.demo_suite.fonts import FontsMissingError
from examples.demo_suite.train import THREADS, report
from examples.from_packages.commands import CommandError
from examples.from_packages.packages import FetchError
from examples.from_packages.training import quieten
from examples.suites.catalogue import MAKERS


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when all is made, 2 when fonts or a package are missing or a command failed."""
    parser = argparse.ArgumentParser(prog="python -m examples.suites", description=__doc__)
    parser.add_argument("name", choices=MAKERS, help="which suite")
    parser.add_argument("--out", type=Path, required=True, help="folder for the store, data and models")
    parser.add_argument("--threads", type=int, default=THREADS, help="processor threads to train with")
    chosen = parser.parse_args(arguments)
    begun = time.monotonic()
    torch.set_num_threads(chosen.threads)
    quieten(logging)
    try:
        store = MAKERS[chosen.name](chosen.out.resolve(), report)
    except (FontsMissingError, FetchError, CommandError) as error:
        print(error, file=sys.stderr)
        return 2
    minutes, worked = (time.monotonic() - begun) / 60, time.process_time() / 60
    report(f"Built {store} in {minutes:.1f} minutes, {worked:.1f} of them processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
