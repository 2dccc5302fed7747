"""The pretrained weights in Ray's object store: read and verified once, mapped by every replica of a node.

    arrays = as_arrays(tensors)      # where they are put
    tensors = as_tensors(ray.get(ref))  # where they are used: views of the memory that all of a node share

Ray pickles arrays out of band and maps what it has read-only, so a view costs a replica no memory of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

# numpy knows no bfloat16: those travel as their bits.
Arrays: TypeAlias = dict[str, tuple[Any, bool]]


def as_arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """Returns what Ray keeps: of each tensor an array, and whether it is the bits of bfloat16."""
    return {name: _as_array(tensor.contiguous()) for name, tensor in tensors.items()}


def as_tensors(arrays: Arrays) -> dict[str, Tensor]:
    """Returns views of arrays, which nobody may write to."""
    with warnings.catch_warnings():
        # Nothing writes to the encoder's weights; a write would end the process.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return {name: _as_tensor(array, is_bits) for name, (array, is_bits) in arrays.items()}


def _as_array(tensor: Tensor) -> tuple[Any, bool]:
    is_bits = tensor.dtype == torch.bfloat16
    return (tensor.view(torch.int16) if is_bits else tensor).numpy(), is_bits


def _as_tensor(array: Any, is_bits: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if is_bits else tensor
