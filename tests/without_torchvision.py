"""Imports packages that import torchvision, whose wheel needs another torch than the tests have."""

from __future__ import annotations

import importlib
import sys
from typing import Any
from unittest import mock

_PARTS = ("ops", "ops.misc", "transforms", "transforms.functional", "transforms.v2", "datasets", "models")
_FURTHER = ("datasets.folder", "models.feature_extraction")
_NAMES = ("torchvision", *(f"torchvision.{part}" for part in (*_PARTS, *_FURTHER)))


def import_without_torchvision(package: str) -> Any:
    """Returns the package, for which torchvision does nothing: its transforms do not work."""
    # Only these names go again: parts of torch cannot be imported twice.
    sys.modules.update(dict.fromkeys(_NAMES, mock.MagicMock()))
    try:
        return importlib.import_module(package)
    finally:
        for name in _NAMES:
            del sys.modules[name]
