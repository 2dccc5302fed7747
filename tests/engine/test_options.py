"""The options of an engine: what they may be, and the device that they come to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mass_serve.engine import FORMS, EngineOptions
from mass_serve.engine.execution import Execution
from mass_serve.engine.set_cache import SetKey


def with_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("asked", "devices", "found"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_device_that_is_there(
    asked: str, devices: int, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_devices(monkeypatch, devices)
    assert EngineOptions(device=asked).torch_device == torch.device(found)


@pytest.mark.parametrize(
    ("asked", "devices", "sentence"),
    [
        ("cuda", 0, "no CUDA device"),
        ("cuda:0", 0, "no CUDA device"),
        ("cuda:300", 2, "the last one is cuda:1"),
    ],
)
def test_a_device_that_is_not_there(
    asked: str, devices: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_devices(monkeypatch, devices)
    with pytest.raises(ValueError, match=f"device: .*{sentence}"):
        _ = EngineOptions(device=asked).torch_device


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:-1", "cuda:1000", "cuda:\u0663", "CPU", ""])
def test_what_is_no_device(device: str) -> None:
    with pytest.raises(ValueError, match="must be auto, cpu, cuda or cuda:INDEX"):
        EngineOptions(device=device)


def test_an_option_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="colour"):
        EngineOptions.model_validate({"colour": "blue"})


@pytest.mark.parametrize("execution", ["", "merged", "LOW_RANK"])
def test_what_is_no_execution(execution: str) -> None:
    with pytest.raises(ValueError, match="Input should be 'low_rank', 'materialised' or 'adaptive'"):
        EngineOptions.model_validate({"execution": execution})


def test_every_form_is_an_execution_and_only_adaptive_is_no_form() -> None:
    assert (*FORMS, "adaptive") == tuple(Execution)
    assert tuple(SetKey((0,), materialised).form for materialised in (False, True)) == FORMS


def test_paths_are_no_labels() -> None:
    """Metrics are open to whoever reaches the port, and an option that nobody set needs no label."""
    told = EngineOptions(trusted_keys=Path("/etc/keys/public.pem")).labels
    assert told == EngineOptions().labels
    assert "trusted_keys" not in told


@pytest.mark.parametrize(
    ("capabilities", "found"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"architecture": "aarch64", "bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_the_dtype_that_a_processor_is_fast_in(
    capabilities: dict[str, object], found: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    options = EngineOptions(device="cpu")
    assert options.torch_dtype == found
    assert options.labels["dtype"] == str(found).removeprefix("torch.")
    assert EngineOptions(device="cpu", dtype="float32").torch_dtype == torch.float32
    whole = EngineOptions(device="cpu", dtype="int8")
    assert (whole.torch_dtype, whole.labels["dtype"]) == (torch.int8, "int8")


@pytest.mark.parametrize(
    ("capability", "found"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_the_dtype_that_a_gpu_is_fast_in(
    capability: tuple[int, int], found: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_devices(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert EngineOptions(dtype="auto").torch_dtype == found
