"""From settings to an engine, for the commands that need one."""

from __future__ import annotations

from functools import partial
from importlib.resources import files

import torch

from server.engine import Engine
from server.service import LoadEngine
from server.settings import Settings, SettingsError


def engine_loader(settings: Settings) -> LoadEngine:
    """A function that loads the store of the settings. Raises SettingsError for a device that is absent."""
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    return partial(
        Engine.load,
        settings.store or str(files("server").joinpath("demo_store")),
        device=_device(settings.device),
        dtype=settings.dtype,
        execution=settings.execution,
        set_cache_bytes=settings.set_cache_bytes,
    )


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: cuda was asked for, and torch sees no CUDA device here; use cpu or auto")
    return wanted
