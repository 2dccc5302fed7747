"""Single files of FusionBench's algorithms, without the rest of the package and what it imports."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

# What those files import and their computations do without.
_STAND_INS = ("fusion_bench", "lightning", "omegaconf", "tqdm", "transformers")


class _StandIn(ModuleType):
    """A module whose every name is a class of its own that does nothing."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Nothing,), {})


class _Nothing:
    """A base class, a context or a progress bar, as it is needed."""

    _config_mapping: ClassVar[dict[str, str]] = {}

    def __init__(self, *arguments: Any, **_: Any) -> None:
        self._items = arguments[0] if arguments else ()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    @staticmethod
    def write(_: str) -> None: ...


def fusion_bench(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports the file `method/NAME` of the package; what it imports beside torch does nothing."""
    spec = importlib.util.find_spec("fusion_bench")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "method" / name
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in ("from", "import") and words[1].split(".")[0] in _STAND_INS:
            monkeypatch.setitem(sys.modules, words[1], _StandIn(words[1]))
    package = f"fusion_bench.method.{path.parent.name}"
    for stand_in in (package, f"{package}.utils"):
        monkeypatch.setitem(sys.modules, stand_in, _StandIn(stand_in))
    one = importlib.util.spec_from_file_location(f"{package}.{path.stem}", path)
    assert one is not None
    assert one.loader is not None
    module = importlib.util.module_from_spec(one)
    monkeypatch.setitem(sys.modules, one.name, module)
    one.loader.exec_module(module)
    return module
