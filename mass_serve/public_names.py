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


def public_names(folder: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Makes the `__getattr__` and the `__dir__` of a folder's module."""

    def get(name: str) -> object:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)  # the import system asks for such, and wants no names
        public = import_module(f"{folder}.public")
        if name != "__all__" and name not in public.__all__:
            raise AttributeError(f"module {folder!r} has no attribute {name!r}")
        found = getattr(public, name)
        if name != "__all__":
            vars(sys.modules[folder])[name] = found  # whoever asks again finds it without this function
        return found

    def names() -> list[str]:
        return [*import_module(f"{folder}.public").__all__]

    return get, names
