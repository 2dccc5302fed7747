"""How many tokens of a text a model's files say that it reads, and which end of a longer one they cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.preprocessing import CutEnd
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.vocabularies import CONFIG_FILE

# By file, transformers' and sentence-transformers', the key of the most tokens.
_LENGTHS = {CONFIG_FILE: "model_max_length", "sentence_bert_config.json": "max_seq_length"}
_SIDE, _SIDES = "truncation_side", ("right", "left")


def read_max_tokens(folder: Path, positions: int) -> int:
    """The least of what the files beside a model say and of its positions. Raises CheckpointError.

    Where transformers knows of no maximum it writes 1e30, which is no less than any model's positions.
    """
    told = ((folder / name, key, _said(folder / name, key)) for name, key in _LENGTHS.items())
    return int(min([positions, *(_size(*one) for one in told if one[-1] is not None)]))


def read_cut_end(folder: Path) -> CutEnd | None:
    """The end of a text that the files beside a model cut off, None where they do not say.

    Raises CheckpointError.
    """
    path = folder / CONFIG_FILE
    side: CutEnd | None = _said(path, _SIDE)
    if side is not None and side not in _SIDES:
        raise CheckpointError(f"{path}: {_SIDE} must be {' or '.join(_SIDES)}, found {side!r:.80}")
    return side


def check_same_cut_end(task: str, folder: Path, pretrained: CutEnd) -> None:
    """Raises CheckpointError where a fine-tuned model's files say another end than that of its store."""
    own = read_cut_end(folder)
    if own is not None and own != pretrained:
        raise CheckpointError(
            f"task {task}: {folder / CONFIG_FILE} has {_SIDE} {own!r}, and the pretrained model cuts texts at"
            f" the {pretrained}: all tasks of a store read the same tokens"
        )


def _said(path: Path, key: str) -> Any:
    return read_json_object(path).get(key) if path.exists() else None


def _size(path: Path, key: str, value: Any) -> int | float:
    # Not an int alone: 1e30 is a float where another program has written it.
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1 or value % 1:
        raise CheckpointError(f"{path}: {key} must be a whole number above 0, found {value!r:.80}")
    return value
