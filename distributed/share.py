"""What one replica or worker has of a machine: n cores and as many threads, and a GPU with `cuda`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from mass_serve.server.settings import Settings

AnySettings = TypeVar("AnySettings", bound=Settings)


def resources(settings: Settings) -> dict[str, float]:
    """Returns what Ray is asked for."""
    return {"num_cpus": settings.num_threads or 1, "num_gpus": int(device_of(settings) == "cuda")}


def device_of(settings: Settings) -> str:
    """Returns the device: the one GPU that Ray shows a process that asked for one, or none at all."""
    return "cuda" if settings.device.startswith("cuda") else "cpu"


def within_share(settings: AnySettings) -> AnySettings:
    """Returns settings for a process that shares its machine: the defaults would take all cores of it."""
    cores = settings.num_threads or 1
    workers = settings.decode_workers if "decode_workers" in settings.model_fields_set else cores
    device = device_of(settings)
    return settings.model_copy(update={"num_threads": cores, "decode_workers": workers, "device": device})


def with_whole_paths(settings: AnySettings) -> AnySettings:
    """Returns settings whose paths are the same from every folder: Ray's processes have their own."""
    whole: dict[str, object] = {name: value.absolute() for name, value in settings if isinstance(value, Path)}
    if settings.store is not None and "://" not in settings.store:
        whole["store"] = str(Path(settings.store).absolute())
    return settings.model_copy(update=whole)
