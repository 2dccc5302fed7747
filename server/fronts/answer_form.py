"""What the device's process answers its front ends, which are its children: pickled, tensors as their bytes.

Only whoever starts the process writes them. What comes the other way is never unpickled.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import Any

import torch
from torch import Tensor

from mass_serve.engine import DeviceLostError
from mass_serve.model_store.errors import StoreError
from mass_serve.server.errors import ServiceError

# What a front end tells apart, of two that apply the first. All else is something that went wrong, in words.
TOLD = (
    StoreError,
    ServiceError,
    ValueError,
    MemoryError,
    FloatingPointError,
    ArithmeticError,
    DeviceLostError,
)


def dumps(found: object) -> bytes:
    """Returns the bytes of a result, or of an error to be raised where it is read."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, pickle.HIGHEST_PROTOCOL)
    # torch's own way would send all of a batch with each of its rows.
    pickler.dispatch_table = copyreg.dispatch_table.copy() | {Tensor: _parts_of_tensor}
    pickler.dump(_told(found) if isinstance(found, BaseException) else found)
    return stream.getvalue()


def loads(body: bytearray) -> Any:
    """Returns a result. Raises the error that there was instead."""
    found = pickle.loads(body)
    try:
        if isinstance(found, BaseException):
            raise found
        return found
    finally:
        # The error's traceback has this frame, which would keep the error and all that its callers have.
        del found


def _told(error: BaseException) -> Exception:
    if isinstance(error, torch.OutOfMemoryError):
        return MemoryError(str(error))
    for kind in TOLD:
        if isinstance(error, kind):
            # Made anew, for a library's own kind may need more than a text.
            return error if type(error).__module__.startswith("mass_serve.") else kind(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")


def _parts_of_tensor(tensor: Tensor) -> tuple[Any, ...]:
    return _tensor, (tensor.numpy().tobytes(), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def _tensor(content: bytes, dtype: str, shape: tuple[int, ...]) -> Tensor:
    if not content:
        return torch.empty(shape, dtype=getattr(torch, dtype))
    return torch.frombuffer(bytearray(content), dtype=getattr(torch, dtype)).view(shape)
