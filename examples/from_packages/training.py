"""What is reported of a training, and its figures, which are written when all else of it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Report = Callable[[str], None]


def silent(line: str) -> None:
    """Reports nothing."""


def quieten(logging: Any) -> None:
    """Keeps transformers from saying that a pretrained file has no classifier; `logging` is its module."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def once(file: Path, make: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    """The figures in the file. Where it is not there, `make` is called, and they and its seconds written."""
    if not file.exists():
        begun = time.process_time()
        figures = dict(make())
        file.parent.mkdir(parents=True, exist_ok=True)
        half = file.with_suffix(".half")
        half.write_text(json.dumps(figures | {"seconds": time.process_time() - begun}) + "\n")
        half.rename(file)
    found: Mapping[str, float] = json.loads(file.read_text())
    return found
