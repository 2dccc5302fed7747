"""The reader of tensor files beside safetensors' own: the same tensors, and no file that it would refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mass_serve.model_store.format.tensor_files import (
    LARGEST_HEADER_BYTES,
    TensorFile,
    TensorFileError,
    TensorSpec,
    is_moderate,
)
from mass_serve.model_store.storage.regular_files import RegularFile

TENSORS = {
    "wide": torch.randn(3, 5, dtype=torch.float64),
    "float": torch.randn(7),
    "half": torch.randn(2, 1, 3).half(),
    "brain": torch.randn(4, 4).bfloat16(),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 3),
    "ids": torch.arange(5),
    "flags": torch.tensor([True, False]),
}


def opened(path: Path) -> TensorFile:
    return TensorFile(RegularFile.open(path))


def test_the_same_tensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x", {"format": "pt"})
    file = opened(tmp_path / "x")
    assert file.specs.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        if tensor.is_floating_point():
            assert file.specs[name] == TensorSpec(tensor.dtype, tuple(tensor.shape))
            assert torch.equal(file.read(name), tensor)
            assert file.read(name).dtype == tensor.dtype
        else:
            assert file.specs[name] == TensorSpec(None, tuple(tensor.shape))
            with pytest.raises(TensorFileError, match=f"{name} must be floating-point numbers"):
                file.read(name)


def entry(shape: list[Any], start: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS: dict[str, tuple[str, int]] = {
    "no object": ("[]", 0),
    "no JSON": ("{", 0),
    "gap": (json.dumps({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}), 12),
    "gap at the beginning": (json.dumps({"a": entry([1], 4, 8)}), 8),
    "overlap": (json.dumps({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}), 12),
    "twice the same bytes": (json.dumps({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}), 4),
    "more than the file": (json.dumps({"a": entry([2], 0, 8)}), 4),
    "less than the file": (json.dumps({"a": entry([1], 0, 4)}), 8),
    "bytes beside no tensor": ("{}", 4),
    "another size": (json.dumps({"a": entry([3], 0, 8)}), 8),
    "backwards": (json.dumps({"a": entry([1], 4, 0)}), 4),
    "negative": (json.dumps({"a": entry([-1], 0, 4)}), 4),
    "a fraction": (json.dumps({"a": entry([1.0], 0, 4)}), 4),
    "true": (json.dumps({"a": entry([True], 0, 4)}), 4),
    "text": (json.dumps({"a": entry(["1"], 0, 4)}), 4),
    "three offsets": (json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2, 4]}}), 4),
    "no shape": (json.dumps({"a": {"dtype": "F32", "data_offsets": [0, 4]}}), 4),
    "unknown dtype": (json.dumps({"a": entry([1], 0, 4, "F33")}), 4),
    "a list as dtype": (json.dumps({"a": entry([1], 0, 4, ["F32"])}), 4),
    "metadata of numbers": (json.dumps({"__metadata__": {"a": 1}}), 0),
    "metadata of no object": (json.dumps({"__metadata__": []}), 0),
    "a product of 64 bits": (json.dumps({"a": entry([2**32, 2**32], 0, 0)}), 0),
}
# Of these safetensors has another opinion, or refuses them for what follows from them.
STRICTER: dict[str, tuple[str, int]] = {
    "a key twice": ('{"a":%s,"a":%s}' % (json.dumps(entry([1], 0, 4)), json.dumps(entry([1], 4, 8))), 8),  # noqa: UP031
    "a rank of 65": (json.dumps({"a": entry([1] * 65, 0, 4)}), 4),
    "no numbers of no end": (json.dumps({"a": entry([0, 2**62, 2**62], 0, 0)}), 0),
}


def written(path: Path, header: str, size: int) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0" * size)
    return path


@pytest.mark.parametrize("name", HEADERS)
def test_what_safetensors_refuses_is_refused(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x", *HEADERS[name])
    with pytest.raises((SafetensorError, OSError)), safe_open(path, framework="pt"):
        pass
    with pytest.raises(TensorFileError, match="it is not a complete safetensors file"):
        opened(path)


@pytest.mark.parametrize("name", STRICTER)
def test_what_else_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(TensorFileError, match="it is not a complete safetensors file"):
        opened(written(tmp_path / "x", *STRICTER[name]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1",
        (2).to_bytes(8, "little") + b"{",
        (2**63).to_bytes(8, "little") + b"{}",
        (LARGEST_HEADER_BYTES + 8).to_bytes(8, "little") + b"{}" + b" " * (LARGEST_HEADER_BYTES + 6),
    ],
    ids=["empty", "one byte", "cut off", "64 bits", "17 MB"],
)
def test_headers_that_do_not_fit(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(TensorFileError, match="it is not a complete safetensors file"):
        opened(tmp_path / "x")


def test_an_empty_file_of_tensors(tmp_path: Path) -> None:
    assert opened(written(tmp_path / "x", "{}", 0)).read_all() == {}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_numbers_that_can_be_computed_with(dtype: torch.dtype) -> None:
    assert is_moderate(torch.tensor([-9e29, 0.0, 9e29], dtype=dtype))
    assert is_moderate(torch.empty(0, dtype=dtype))
    for number in (float("nan"), float("inf"), float("-inf"), 2e30, -2e30):
        for place in range(3):
            numbers = torch.zeros(3, dtype=dtype)
            numbers[place] = number
            assert not is_moderate(numbers)
