"""Imports run one way, from the command line down to the kernels, and never in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mass_serve

ROOT = Path(__file__).parent.parent
PACKAGE = "mass_serve"
# What each folder may import: a module, or a folder and all in it. Siblings are not in each other's sets.
GROUND = {"merging", "kernels"}
PARTS = {"model_store", "router", "backbone"}
BELOW: dict[str, set[str]] = {
    "kernels": set(),
    "merging": set(),
    "router": GROUND,
    "backbone": GROUND,
    "model_store": GROUND | {"backbone.architecture"},
    "engine": GROUND | PARTS,
    "evaluation": GROUND | PARTS | {"engine"},
    "server": GROUND | PARTS | {"engine"},
    "cli": GROUND | PARTS | {"engine", "evaluation", "server"},
}
OUTSIDE = {"benchmarks", "examples", "tests", "docs"}


def _module_of(path: Path) -> str:
    """The name of a file below the package, such as `engine.inputs.decode`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module_of(path): path for folder in BELOW for path in (ROOT / folder).rglob("*.py")}


def _imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, by its full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: imports are absolute"
            assert not node.level, f"{path}: imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = {name for name in inner if name.removeprefix(f"{PACKAGE}.") in MODULES}
            names |= submodules or {node.module}
    return names


def _forbidden(folder: str, imported: str) -> bool:
    """Whether a file of the folder must not import that module."""
    first, _, rest = imported.partition(".")
    if first in OUTSIDE | BELOW.keys():
        return True  # of the checkout, or a part of ours under a name that others have too
    if first != PACKAGE or rest.partition(".")[0] == folder:
        return False
    allowed = BELOW[folder]
    return not any(rest == name or rest.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("folder", BELOW)
def test_imports_run_downwards_only(folder: str) -> None:
    files = {module: path for module, path in MODULES.items() if module.split(".")[0] == folder}
    assert files
    wrong = [
        f"{module} imports {name}"
        for module, path in files.items()
        for name in _imported(path)
        if _forbidden(folder, name)
    ]
    assert wrong == []


def test_the_rule_itself_catches_what_it_is_for() -> None:
    assert _forbidden("kernels", "mass_serve.server.app")
    assert _forbidden("router", "mass_serve.backbone")
    assert _forbidden("model_store", "mass_serve.backbone")
    assert _forbidden("evaluation", "mass_serve.server.settings")
    assert _forbidden("engine", "kernels.rows")
    assert _forbidden("engine", "benchmarks.timing")
    assert not _forbidden("model_store", "mass_serve.backbone.architecture")
    assert not _forbidden("engine", "mass_serve.kernels")
    assert not _forbidden("engine", "torch")


def _circle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name.removeprefix(f"{PACKAGE}.") for name in _imported(path)} - {module}
        for module, path in MODULES.items()
        if path.name != "__init__.py"  # a face hands names on: whoever imports it means the file behind it
    }
    assert _circle(graph) == []
    assert _circle({"a": {"b"}, "b": {"a"}})


def test_no_file_has_the_name_of_a_module_of_the_standard_library() -> None:
    """A file run as a script puts its folder first on the path, where such a neighbour hides another."""
    folders = (*BELOW, *OUTSIDE)
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    names = {path: path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert [path for path, name in names.items() if name in sys.stdlib_module_names] == []


def _loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    code = f"import sys; {statement}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_arithmetic_needs_torch_alone() -> None:
    """A GPU machine may have nothing else: importing these must not import the service's dependencies."""
    loaded = _loaded_by("from mass_serve import kernels, merging, router, backbone")
    assert "torch" in loaded
    assert not loaded & {"pydantic", "fastapi", "safetensors", "fsspec", "typer", "PIL", "transformers"}


@pytest.mark.parametrize("folder", ["engine", "evaluation"])
def test_no_web_framework_is_needed_without_a_server(folder: str) -> None:
    loaded = _loaded_by(f"import mass_serve.{folder}")
    assert not loaded & {"fastapi", "starlette", "uvicorn", "prometheus_client", "typer"}


@pytest.mark.parametrize(
    "module", sorted(name for name, path in MODULES.items() if path.name == "__init__.py")
)
def test_everything_that_a_folder_exports_exists(module: str) -> None:
    exec(f"from mass_serve.{module} import *", {})


def test_every_folder_of_the_package_is_here() -> None:
    """A link for each: without one a folder would be missing from the wheel."""
    assert {path.name for path in Path(mass_serve.__file__).parent.iterdir() if path.is_dir()} - {
        "__pycache__"
    } == BELOW.keys()
