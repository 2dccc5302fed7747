"""Models in folders and files of this machine."""

from __future__ import annotations

import re
from pathlib import Path

from mass_serve.model_store.errors import CheckpointError

# What a name of the hub looks like; a path may look so too.
_LIKE_A_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@\S+)?", re.ASCII)


def local_model(text: str, folder: Path) -> Path:
    """Returns the path that a text is, seen from a folder.

    Raises CheckpointError where nothing is there, and where the path is none that this machine can have.

    A name of the hub is never fetched for want of a folder: a mistyped path must not become a download.
    """
    path = folder / text
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a NUL in it
        pass
    except OSError as error:
        raise CheckpointError(f"{str(path)[:200]} cannot be read: {error.strerror or error}") from error
    else:
        return path
    if _LIKE_A_HUB_NAME.fullmatch(text) and not text.startswith("."):
        raise CheckpointError(f"{path} does not exist: if it is a model of the hub, name it hf:{text}")
    raise CheckpointError(f"{path} does not exist")
