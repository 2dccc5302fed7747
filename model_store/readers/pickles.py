"""State dicts that `torch.save` wrote, read by the loader that makes tensors only."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.storage.regular_files import LARGEST_TEXT_BYTES, RegularFile

DESCRIPTORS = Path("/proc/self/fd")
TAKE_OUT = (
    "if you trust it, take its weights out with examples/state_dict_of_pickle.py,"
    " where the program that wrote it is installed"
)
# What torch says of a class that it does not make, and of other trouble; around it is advice to execute it.
_FOREIGN = re.compile(r"Unsupported \w+: GLOBAL (\S+)")
_REASON = re.compile(r".*WeightsUnpickler error: ([^\n]*).*", re.DOTALL)
_ZIP_MAGIC = b"PK\x03\x04"  # by which torch tells an archive, too


def load_state_dict(path: Path) -> Any:
    """Loads whatever a pickle holds, as far as it is made of tensors and containers. Raises CheckpointError.

    Storages are mapped where the file is a zip archive, as `torch.save` makes it, so that they are in memory
    only while they are read.
    """
    try:
        with RegularFile.open(path) as file, open(file.duplicate(), "rb") as content:
            zipped = content.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
            if zipped:
                _refuse_bomb(path, content, file.size)
            content.seek(0)
            # Torch maps a file that it opens by name: here that of the descriptor, which no other file gets.
            name = DESCRIPTORS / str(content.fileno())
            mapped = zipped and name.exists()
            return torch.load(name if mapped else content, map_location="cpu", weights_only=True, mmap=mapped)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        if found := _FOREIGN.search(str(error)):
            raise CheckpointError(
                f"{path} holds {found[1]}, and nothing of a pickle is executed here: {TAKE_OUT}"
            ) from error
        raise _unsafe(path, _REASON.sub(r"\1", str(error))) from error
    except Exception as error:  # torch.load documents no exceptions of its own
        raise _unsafe(path, f"{error}: download it again, or give safetensors") from error


def _unsafe(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a state dict that can be loaded safely: {reason}")


def _refuse_bomb(path: Path, content: BinaryIO, size: int) -> None:
    """Raises CheckpointError for an archive that would become larger when it is read.

    `torch.save` compresses nothing, so the parts of its archive are together smaller than the file.
    """
    parts = zipfile.ZipFile(content).infolist()
    if any(part.filename.endswith("/constants.pkl") for part in parts):
        raise CheckpointError(f"{path} is a TorchScript archive, which is a program: {TAKE_OUT}")
    if not all(_is_stored(part) for part in parts):
        raise CheckpointError(f"{path} has compressed parts, which torch.save does not write")
    if sum(part.file_size for part in parts) > size:
        raise CheckpointError(f"{path} has parts that overlap")
    if any(part.filename.endswith("data.pkl") and part.file_size > LARGEST_TEXT_BYTES for part in parts):
        raise CheckpointError(f"{path} has a pickle of names with more than {LARGEST_TEXT_BYTES:,} bytes")


def _is_stored(part: zipfile.ZipInfo) -> bool:
    return part.compress_type == zipfile.ZIP_STORED and part.file_size == part.compress_size
