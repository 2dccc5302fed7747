"""The JSON files of a checkpoint's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.strict_json import parse_json
from mass_serve.model_store.storage.regular_files import read_text_file


@dataclass(frozen=True)
class ConfigFile:
    """A configuration and the file that says it."""

    path: Path
    content: Mapping[str, Any]


def read_json_file(path: Path) -> Any:
    """Reads the JSON value in a file. Raises CheckpointError."""
    try:
        return parse_json(read_text_file(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}: mend it or download it again") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads the JSON object in a file. Raises CheckpointError."""
    content = read_json_file(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return content
