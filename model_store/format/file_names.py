"""Where everything lies within a store: the names of its files and folders."""

from __future__ import annotations

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.json.sig"
PRETRAINED_FILE = "pretrained.safetensors"
TOKENIZER_FILE = "tokenizer.json"  # of a store that reads texts
MOST_TOKENIZER_BYTES = 64 << 20  # that of 256,000 tokens has 34 MB
MERGED_BASE_PREFIX = "merged_base-"
CALIBRATION_PREFIX = "calibration-"
TASKS_PREFIX = "tasks/"


def task_folder(name: str, revision: str) -> str:
    """The folder of one revision of a task, within the store."""
    return f"{TASKS_PREFIX}{name}/{revision}"
