"""What every file of the package imports, read off its source: also inside functions and for types alone."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "mass_serve"
FOLDERS = (
    "client",
    "inputs",
    "sandbox",
    "kernels",
    "merging",
    "router",
    "backbone",
    "model_store",
    "engine",
    "distributed",
    "jobs",
    "evaluation",
    "server",
    "cli",
)

# Files that hand on the names of others, a folder's own and, where those wait, the list of them.
FACES = ("__init__.py", "public.py")


def _module_of(path: Path) -> str:
    """The name of a file below the package, such as `inputs.images.decode`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module_of(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


def imported_names(source: str) -> set[str]:
    """Everything that a file imports, wherever in it, by its full name: `mass_serve.engine.Engine`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute"
            assert not node.level, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


NAMES = {module: imported_names(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}


def module_in(name: str) -> str:
    """The module of a full name, without our package: `engine` of `mass_serve.engine.Engine`."""
    ours = name.removeprefix(f"{PACKAGE}.")
    if ours == name:
        return name
    while ours and ours not in MODULES:
        ours = ours.rpartition(".")[0]
    return ours


def below(module: str, allowed: set[str]) -> bool:
    """Whether a module is one of those allowed, or within one."""
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The nodes of a circle in the graph; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def handed_on(names: Mapping[str, set[str]]) -> dict[str, str]:
    """Where each name that a folder's face hands on comes from: `engine.Engine` from `engine.engine`."""
    return {
        f"{face.removesuffix('.public')}.{name.rpartition('.')[2]}": module_in(name)
        for face, imported in names.items()
        if MODULES[face].name in FACES
        for name in imported
        if name.startswith(f"{PACKAGE}.")
    }


def behind(name: str, faces: Mapping[str, str]) -> str:
    """The module that a full name of ours is defined in, however many faces hand it on."""
    own = name.removeprefix(f"{PACKAGE}.")
    followed = set()
    while own in faces and own not in followed:
        followed.add(own)
        own = f"{faces[own]}.{own.rpartition('.')[2]}"
    return module_in(f"{PACKAGE}.{own}")


def _only_hands_on(path: Path) -> bool:
    """Whether a file is a folder's face that defines nothing: whoever imports it means the file behind it."""
    defined = ast.FunctionDef | ast.ClassDef
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return path.name in FACES and not any(isinstance(node, defined) for node in tree.body)


def graph(names: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Which file needs which."""
    faces = handed_on(names)
    return {
        module: {behind(name, faces) for name in imported if name.startswith(f"{PACKAGE}.")} - {module}
        for module, imported in names.items()
        if not _only_hands_on(MODULES[module])
    }
