"""The demo's shipped store as a suite: what it is measured on, what to tune it on, what it does not know."""

from __future__ import annotations

import shutil
from pathlib import Path

from examples.demo_suite.fonts import require_fonts
from examples.demo_suite.gallery import EXAMPLES, FURTHER, write_gallery
from examples.demo_suite.pretraining import Report
from examples.demo_suite.tasks import TASKS
from examples.suites.encoders import SHIPPED
from examples.suites.unseen import write_unseen

# Numbers of the held-out pictures of each label: the first twelve ship with the repository.
TUNING = range(12, 22)
# For `python -m benchmarks.created_tasks`: what a task is created from, and what it is then asked about.
CREATED = {"few": range(22, 38), "further": range(FURTHER, FURTHER + 60)}


def make_demo(out: Path, report: Report) -> Path:
    """Copies store and pictures that ship with the repository to `out`, and draws the others.

    Raises FontsMissingError.
    """
    require_fonts()
    report(f"Copying {SHIPPED.parent}")
    shutil.copytree(SHIPPED.parent, out / "store", dirs_exist_ok=True)
    shutil.copytree(EXAMPLES / "evaluation", out / "evaluation", dirs_exist_ok=True)
    report("Writing pictures to tune on, and some that no task covers")
    for task in TASKS:
        write_gallery(out / "tuning", task, TUNING)
        for gallery, numbers in CREATED.items():
            write_gallery(out / gallery, task, numbers)
    write_unseen(out / "ood")
    return out / "store"
