"""Files of figures by suite, of which some may be measured again without the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def record(file: Path, figures: Mapping[str, Any]) -> None:
    """Writes the figures of suites by their names; those of other suites in the file stay."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(dict(sorted((kept | dict(figures)).items())), indent=1) + "\n")
