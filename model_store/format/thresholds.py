"""The thresholds of a multi-label head as users give them: a JSON object of labels and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.strict_json import parse_json
from mass_serve.model_store.storage.regular_files import read_text_file

THRESHOLDS_FILE = "thresholds.json"
# Of a label that nothing is said of: it is there where it is as likely as not.
USUAL_THRESHOLD = 0.5
_FORM = 'labels and their thresholds, such as {"toxic": 0.3}'


def read_thresholds(path: Path, labels: Sequence[str]) -> tuple[float, ...]:
    """Reads the threshold of each of these labels, in their order, from `{"toxic": 0.3, "spam": 0.8}`.

    A label that the file does not name has USUAL_THRESHOLD. Raises CheckpointError.
    """
    try:
        given = parse_json(read_text_file(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}: give an object of {_FORM}") from error
    if not isinstance(given, dict):
        raise CheckpointError(f"{path} must hold a JSON object of {_FORM}")
    for label, threshold in given.items():
        if label not in labels:
            raise CheckpointError(f"{path} has a threshold for {label[:80]!a}, which is no label of the head")
        if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
            raise CheckpointError(
                f"{path}: the threshold of {label[:80]!a} must be a number from 0 to 1, and is"
                f" {str(threshold)[:40]!a}"
            )
    return tuple(float(given.get(label, USUAL_THRESHOLD)) for label in labels)
