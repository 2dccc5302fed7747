"""From settings to a source of engines."""

from __future__ import annotations

from importlib.resources import files

import torch

from mass_serve.engine import StoreSource
from mass_serve.server.settings import Settings, SettingsError


def demo_store() -> str:
    """Returns the folder of the store that ships with the package."""
    return str(files("mass_serve.server").joinpath("demo_store"))


def store_source(settings: Settings) -> StoreSource:
    """Makes the source of engines that the settings describe, and sets torch's CPU threads.

    Raises SettingsError for a device that is absent, or does not compute what first passes are to.
    """
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    store = settings.store or demo_store()
    source = StoreSource(store, settings.engine_options, max_batch=settings.max_batch_images)
    try:
        source.check_device()  # now, and not when the store has been loaded
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return source
