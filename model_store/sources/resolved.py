"""What a name of a model was resolved to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mass_serve.model_store.format.origin import Origin


@dataclass(frozen=True)
class Resolved:
    """A folder or file of this machine; what was fetched has an origin, what was here already has none."""

    path: Path
    origin: Origin | None = None
