"""Imports run one way, from the command line down to the kernels, and never in a circle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Set
from importlib import import_module
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mass_serve
from tests.imports import FOLDERS, MODULES, NAMES, PACKAGE, ROOT, behind, below, circle, graph, module_in

# What each folder may import: a module, or a folder and all in it. Siblings are not in each other's sets.
GROUND = {"merging", "kernels"}
PARTS = {"model_store", "router", "backbone", "inputs"}
BELOW: dict[str, set[str]] = {
    "client": set(),
    "inputs": set(),
    "sandbox": {"inputs"},
    "kernels": set(),
    "merging": set(),
    "router": GROUND,
    "backbone": GROUND,
    "model_store": GROUND | {"backbone.architecture"},
    "engine": GROUND | PARTS,
    "jobs": GROUND | PARTS | {"sandbox", "engine"},
    "evaluation": GROUND | PARTS | {"engine", "jobs"},
    "server": GROUND | PARTS | {"sandbox", "engine"},
    "distributed": GROUND | PARTS | {"sandbox", "engine", "jobs", "server"},
    "cli": GROUND | PARTS | {"engine", "jobs", "evaluation", "server", "distributed"},
}
# What each may import beside the standard library and ourselves, also where an import waits in a function.
THIRD_PARTY: dict[str, set[str]] = {
    "client": {"httpx", "anyio", "pydantic", "PIL", "numpy"},
    "inputs": {"numpy", "PIL", "tokenizers"},
    "sandbox": {"numpy", "PIL", "structlog"},
    "kernels": {"torch", "triton"},
    "merging": {"torch"},
    "router": {"torch"},
    "backbone": {"torch"},
    "model_store": {
        *("torch", "pydantic", "pydantic_core", "cryptography", "fsspec"),
        *("huggingface_hub", "tokenizers", "yaml"),
    },
    "engine": {"torch", "PIL", "pydantic"},
    "jobs": {"torch", "fsspec", "pyarrow"},
    "evaluation": {"torch", "numpy", "matplotlib"},
    "server": {
        *("torch", "numpy", "PIL", "pydantic", "pydantic_settings", "python_multipart", "structlog"),
        *("fastapi", "starlette", "uvicorn", "h11", "prometheus_client", "opentelemetry"),
        *("google", "grpc", "grpc_health", "grpc_reflection"),
    },
    "distributed": {"ray", "torch", "fastapi", "starlette", "structlog", "pydantic"},
    "cli": {"pydantic", "rich", "structlog", "typer"},
}
OUTSIDE = {"benchmarks", "examples", "tests", "docs"}


def forbidden(folder: str, name: str) -> bool:
    """Whether a file of the folder must not import what has that full name."""
    first = name.partition(".")[0]
    if first in OUTSIDE | BELOW.keys():
        return True  # of the checkout, or a part of ours under a name that others have too
    if first != PACKAGE:
        return first not in sys.stdlib_module_names | THIRD_PARTY[folder]
    imported = module_in(name)
    if not imported or imported.partition(".")[0] == folder:
        return False
    return not below(imported, BELOW[folder])


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_downwards_only(folder: str) -> None:
    files = [module for module in MODULES if module.partition(".")[0] == folder]
    assert files
    wrong = [
        f"{module} imports {name}" for module in files for name in NAMES[module] if forbidden(folder, name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("kernels", "mass_serve.server.app.create_app"),
        ("kernels", "pydantic"),
        ("router", "mass_serve.backbone.ExpertBank"),
        ("inputs", "torch"),
        ("inputs", "mass_serve.model_store.format.preprocessing.Preprocessing"),
        ("merging", "mass_serve.kernels.rows.product"),
        ("model_store", "mass_serve.backbone.ExpertBank"),
        ("evaluation", "mass_serve.server.settings.Settings"),
        ("evaluation", "fastapi.FastAPI"),
        ("jobs", "mass_serve.server.settings.Settings"),
        ("jobs", "mass_serve.evaluation.data.EvaluationData"),
        ("engine", "fastapi"),
        ("engine", "starlette.requests.Request"),
        ("engine", "kernels.rows"),
        ("engine", "benchmarks.timing"),
        ("server", "typer"),
        ("client", "torch"),
        ("client", "mass_serve.server.protocols.results"),
    ],
)
def test_the_rule_catches(folder: str, name: str) -> None:
    assert forbidden(folder, name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("model_store", "mass_serve.backbone.architecture.Architecture"),
        ("engine", "mass_serve.kernels.group_by_expert_set"),
        ("server", "mass_serve.__version__"),
        ("engine", "torch"),
        ("engine", "collections.abc.Sequence"),
    ],
)
def test_the_rule_allows(folder: str, name: str) -> None:
    assert not forbidden(folder, name)


def test_no_files_import_each_other_in_a_circle() -> None:
    needs = graph(NAMES)
    assert circle(needs) == []
    assert "engine.engine" in needs["engine.source"], "names are followed"
    assert "kernels.low_rank" in needs, "a face that defines something is a file like others"


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"a"}})
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})
    assert not circle({"a": {"b"}, "b": {"c"}})
    faces = {"engine.Engine": "engine.engine"}
    assert behind("mass_serve.engine.Engine", faces) == "engine.engine", "also through a face"
    through_a_face = {**NAMES, "kernels.rows": {"mass_serve.kernels.low_rank.segmented_linear"}}
    assert circle(graph(through_a_face))


def test_no_file_has_the_name_of_a_well_known_module() -> None:
    """A file run as a script puts its folder first on the path, where such a neighbour hides another."""
    own = distributions_of("mass-serve", {"dev"})  # what else is installed here is not known by all
    others = {
        name for name, of in packages_distributions().items() if own.intersection(map(canonicalize_name, of))
    }
    known = (sys.stdlib_module_names | others) - {PACKAGE}
    assert {"http", "inspect", "numpy", "requests"} <= known
    paths = [path for folder in (*FOLDERS, *OUTSIDE) for path in (ROOT / folder, *(ROOT / folder).rglob("*"))]
    names = {path: path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()}
    # Those that are not installed here, and that others import where they find them.
    known |= {"kernels", "build"}
    shadows = {path for path, name in names.items() if name in known}
    assert shadows == {ROOT / "kernels", ROOT / "tests" / "kernels"}, (
        "only the folder that is to be called so"
    )


def distributions_of(name: str, extras: Set[str]) -> set[str]:
    """A distribution and all that it requires, with these extras."""
    found, left = set[str](), [(canonicalize_name(name), extras)]
    while left:
        name, extras = left.pop()
        for line in requires(name) or ():
            needed = Requirement(line)
            wanted = any(
                needed.marker is None or needed.marker.evaluate({"extra": one}) for one in {"", *extras}
            )
            needed_name = canonicalize_name(needed.name)
            if wanted and needed_name not in found:
                left.append((needed_name, needed.extras))
        found.add(name)
    return found


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    code = f"import sys; {statement}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_arithmetic_needs_torch_alone() -> None:
    """A GPU machine may have nothing else: importing these must not import the service's dependencies."""
    folders = ("kernels", "merging", "router", "backbone")
    loaded = loaded_by("; ".join(f"import {PACKAGE}.{folder}.public" for folder in folders))
    assert "torch" in loaded
    assert not loaded & {"pydantic", "fastapi", "safetensors", "fsspec", "typer", "PIL", "transformers"}


def test_the_client_needs_neither_torch_nor_pixels() -> None:
    """It is imported by programs that have no model, and most send files as they are."""
    loaded = loaded_by("import mass_serve.client")
    assert {"httpx", "pydantic"} <= loaded
    assert not loaded & {"torch", "fastapi", "numpy", "PIL", "typer"}


@pytest.mark.parametrize("folder", ["engine", "jobs", "evaluation"])
def test_no_web_framework_is_needed_without_a_server(folder: str) -> None:
    files = [module for module in MODULES if module.partition(".")[0] == folder]
    loaded = loaded_by("; ".join(f"import {PACKAGE}.{module}" for module in files))
    assert not loaded & {"fastapi", "starlette", "uvicorn", "prometheus_client", "typer"}


@pytest.mark.parametrize(
    "module", sorted(name for name, path in MODULES.items() if path.name == "__init__.py")
)
def test_everything_that_a_folder_exports_exists(module: str) -> None:
    exec(f"from mass_serve.{module} import *", {})


WAITING = sorted(name.removesuffix(".public") for name in MODULES if name.endswith(".public"))


def test_folders_whose_names_wait_import_nothing_that_is_slow() -> None:
    """Python runs a folder's own file before any other of it, so that would be imported by all of them."""
    assert {"engine", "kernels"} <= set(WAITING)
    assert not loaded_by("; ".join(f"import {PACKAGE}.{folder}" for folder in WAITING)) & {
        "torch",
        "pydantic",
    }


@pytest.mark.parametrize("folder", WAITING)
def test_no_name_that_waits_is_that_of_a_file(folder: str) -> None:
    """The folder would have the module by that name from when it is imported, and never look for another."""
    public = import_module(f"{PACKAGE}.{folder}.public")
    files = {name.removeprefix(f"{folder}.") for name in MODULES}
    assert not files & {*public.__all__}
    assert dir(import_module(f"{PACKAGE}.{folder}")) == sorted(public.__all__)
    with pytest.raises(ImportError):
        exec(f"from {PACKAGE}.{folder} import import_module", {})


# Imports each of its arguments in a process of its own, which has of what others made torch and pydantic.
ALONE = """
import os, sys, torch, pydantic
for module in sys.argv[1:]:
    if os.fork() == 0:
        __import__(module)
        os._exit(0)
    if os.wait()[1]:
        print(module)
"""


@pytest.mark.parametrize("folder", WAITING)
def test_each_file_can_be_the_first_that_is_imported(folder: str) -> None:
    """What imports its own folder's names would find them half made, and only where it comes first."""
    modules = [f"{PACKAGE}.{name}" for name in MODULES if below(name, {folder})]
    assert len(modules) > 2
    command = [sys.executable, "-c", ALONE, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "", done.stderr


def test_an_attribute_that_a_file_lacks_is_told_and_not_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waiting").mkdir()
    (tmp_path / "waiting" / "__init__.py").write_text(
        "from mass_serve.public_names import public_names\n__getattr__, __dir__ = public_names(__name__)\n"
    )
    (tmp_path / "waiting" / "public.py").write_text("import sys\nsys.no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="no_such_thing"):
        exec("from waiting import Anything", {})


def test_every_folder_of_the_package_is_here() -> None:
    """A link for each: without one a folder would be missing from the wheel."""
    assert BELOW.keys() == THIRD_PARTY.keys() == set(FOLDERS)
    folders = {path.name for path in Path(mass_serve.__file__).parent.iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(FOLDERS)
