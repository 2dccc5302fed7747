"""The public names of a folder, imported when one of them is first asked for.

    if TYPE_CHECKING:
        from mass_serve.engine.public import *
    else:
        __getattr__, __dir__ = public_names(__name__)

That is all of a folder's `__init__.py`, whose names are in its `public.py`. Python runs the former before any
file of the folder, and what it imported at once would be imported by whoever needs one small file: help and
`inspect` waited seconds for torch. (`__getattr__` of a module: PEP 562.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def public_names(folder: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Makes the `__getattr__` and the `__dir__` of a folder's module."""

    def get(name: str) -> object:
        if name == "__all__":
            return public().__all__
        # The import system asks for these before it looks for a file, and wants no names: whoever needs one
        # file would wait for all, and one that another needs would be asked for while both are imported.
        if name.startswith("__") or find_spec(f"{folder}.{name}") is not None:
            raise AttributeError(name)
        if name not in public().__all__:
            raise AttributeError(f"module {folder!r} has no attribute {name!r}")
        found = getattr(public(), name)
        vars(sys.modules[folder])[name] = found  # whoever asks again finds it without this function
        return found

    def names() -> list[str]:
        return [*public().__all__]

    def public() -> ModuleType:
        try:
            return import_module(f"{folder}.public")
        except AttributeError as error:  # would be taken for one of the name that is asked for, and lost
            raise ImportError(f"{folder}.public cannot be imported: {error}") from error

    return get, names
