"""The table of what jobs take, of what `python -m benchmarks.batch` recorded."""

from __future__ import annotations

import json
from typing import Any

from docs.markup import table
from docs.suites import RESULTS

MEGABYTE = 1_000_000


def jobs_table() -> str:
    """A row for each time, and for the memory after the first inputs and after all."""
    photographs, memory = _recorded("batch_photographs_cpu"), _recorded("batch_memory_cpu")
    images = _recorded("batch_images_cpu")
    one_by_one = photographs["one_by_one_seconds_of_photographs"]
    held = {int(texts): nbytes for texts, nbytes in memory["resident_bytes"].items()}
    rows = [
        ("the photographs, one after the other", f"{one_by_one:.1f} s"),
        ("the same as a job", f"{photographs['job_seconds_of_photographs']:.1f} s"),
        ("so a job is faster by", f"{photographs['job_over_one_by_one']:.2f}"),
        ("the rate of a job over that of the engine on decoded images", f"{images['job_over_engine']:.2f}"),
        *(
            (f"held after {texts:,} texts", f"{held[texts] / MEGABYTE:.0f} MB")
            for texts in (min(held), max(held, key=held.__getitem__), max(held))
        ),
    ]
    return table(("measured", ""), rows)


def _recorded(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
