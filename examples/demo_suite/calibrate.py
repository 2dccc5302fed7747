"""Calibrates the demo's store: `python -m examples.demo_suite.calibrate STORE`.

Its pictures are drawn for that alone: no other measures, trains or chooses anything by them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from examples.demo_suite.fonts import FontsMissingError, require_fonts
from examples.demo_suite.gallery import write_gallery
from examples.demo_suite.tasks import TASKS
from mass_serve.evaluation.calibrate import calibrate
from mass_serve.model_store.progress import silent

NUMBERS = range(500, 512)  # of the held-out pictures of each label
# Two in a hundred of the tasks' own pictures may be told to be of none: with one, a fifth of noise is not.
UNROUTED = 0.02


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when the store is calibrated, 2 when fonts are missing."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo_suite.calibrate", description=__doc__)
    parser.add_argument("store", type=Path, help="the demo's store")
    store: Path = parser.parse_args(arguments).store
    try:
        require_fonts()
    except FontsMissingError as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as pictures:
        for task in TASKS:
            write_gallery(Path(pictures), task, NUMBERS)
        calibrated = calibrate(
            str(store), Path(pictures), UNROUTED, torch.device("cpu"), silent, task_folders=True
        )
    print(f"{store}: unrouted below a familiarity of {calibrated.unrouted_below:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
