"""The cluster that commands join, or start on this machine."""

from __future__ import annotations

import logging

import ray
from ray.exceptions import RayError


def connect(*, shows_logs: bool = False) -> None:
    """Joins the cluster that RAY_ADDRESS names or that runs here, and starts one here where there is none.

    Raises ValueError where it cannot be joined.
    """
    try:
        ray.init(include_dashboard=False, log_to_driver=shows_logs, logging_level=logging.WARNING)
    except (OSError, RuntimeError, RayError) as error:
        raise ValueError(f"the Ray cluster cannot be joined, nor one started: {reason(error)}") from error


def leave() -> None:
    """Leaves the cluster; one that `connect` started ends."""
    ray.shutdown()


def reason(error: Exception) -> str:
    """Returns why something failed in one line: Ray's errors have the traceback of another process."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return lines[-1] if lines else type(cause).__name__
