"""A job in a process of its own, for tests that kill it: `python -m tests.jobs.job_process INPUTS OUT`.

Its parts are small. It says how many inputs are answered whenever it goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mass_serve.jobs import JobProgress, run_job
from mass_serve.jobs.results import folder
from tests.jobs.made import job, tiny_engine

PART_INPUTS = 50


def main(inputs: str, out: str) -> None:
    """Runs a job to its end."""
    folder.PART_INPUTS = PART_INPUTS
    engine = tiny_engine()
    run_job(engine, job([inputs], Path(out), engine), {"store_revision": "tiny"}, _tell)


def _tell(progress: JobProgress) -> None:
    print(progress.inputs, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
