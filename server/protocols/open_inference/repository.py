"""Loading and unloading of tasks for whoever may, whatever the transport."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from mass_serve.engine import ServingEngine
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.model_store.format.groups import GROUP_MARK
from mass_serve.model_store.storage.files import without_credentials
from mass_serve.server.errors import BadRequestError, LoadTimeoutError, NotFoundError
from mass_serve.server.protocols.models import find_model, model_names
from mass_serve.server.serving.service import Service

NOT_LOADED = "The store could not be loaded, the old revision serves on: "


def listed_models(service: Service, only_ready: bool) -> list[dict[str, str]]:
    """Returns all models, with those that were unloaded or without."""
    engine = service.engine
    models = [find_model(engine, name, None) for name in model_names(engine)]
    listed = [{"name": m.name, "version": m.version, "state": "READY", "reason": ""} for m in models]
    if only_ready:
        return listed
    gone = {"version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
    return listed + [{"name": name} | gone for name in engine.left_out]


async def load_model(service: Service, name: str) -> None:
    """Serves the newest revision of the store, with this task even if it was unloaded; `auto`: as it is.

    Returns when that revision serves. Raises BadRequestError where it cannot be loaded, while the old one
    serves on, NotFoundError where the store has no such task, and LoadTimeoutError.
    """
    _refuse_group(name)
    asked = service.store.reload() if name == AUTO else service.store.load_task(name)
    engine = await _loaded(asked, service)
    if name != AUTO and name not in engine.tasks:
        raise NotFoundError(f"There is no task {name[:80]!a} in the store.")


async def unload_model(service: Service, name: str) -> None:
    """Serves without a task until it is loaded again or the server is restarted; the store keeps it.

    Raises as `load_model` does.
    """
    if name == AUTO:
        raise BadRequestError("'auto' is the router's choice among the tasks; unload a task.")
    _refuse_group(name)
    await _loaded(service.store.unload_task(name), service)


def _refuse_group(name: str) -> None:
    if name.startswith(GROUP_MARK):
        raise BadRequestError(f"{name[:80]!a} is a group of tasks; load and unload its tasks, one at a time.")


async def _loaded(future: Future[ServingEngine], service: Service) -> ServingEngine:
    """Returns the engine that then serves. Raises BadRequestError where it could not be loaded.

    Raises LoadTimeoutError after `load_timeout`, and not after `request_timeout`: a good load of a large
    store takes longer than a request may.
    """
    limit = service.settings.load_timeout
    try:
        async with asyncio.timeout(limit):
            # Who asked may leave; the load goes on.
            return await asyncio.shield(asyncio.wrap_future(future))
    except TimeoutError as error:
        if future.done():  # a read of the store has timed out by itself
            raise BadRequestError(f"{NOT_LOADED}{without_credentials(str(error))}") from error
        raise LoadTimeoutError.after(limit) from error
    # A driver of a remote store may raise anything, and a device may have no memory for a second engine.
    except (StoreError, ValueError, ArithmeticError, OSError, RuntimeError, MemoryError) as error:
        raise BadRequestError(f"{NOT_LOADED}{without_credentials(str(error))}") from error
