"""The mode of a store, as far as this version knows it."""

from __future__ import annotations

from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.entries import RouterSpec
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.router.modes import ModeName, mode_named


def known_mode(router: RouterSpec) -> ModeName:
    """Returns the mode that a manifest names. Raises ManifestError where this version has no such mode."""
    try:
        return mode_named(router.mode)
    except ValueError as error:
        raise ManifestError(f"{MANIFEST_FILE} is not valid: router.{error}") from error
