"""Imports run one way: server -> {router, backbone} -> {kernels, model_store}."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "kernels": set(),
    "model_store": set(),
    "router": {"kernels"},
    "backbone": {"kernels", "model_store"},
    "server": {"kernels", "model_store", "router", "backbone"},
}
PURE_ARITHMETIC = {
    "model_store",
    "model_store.merging",
    "model_store.singular_vectors",
    "model_store.threads",
}
OUTSIDE = {"benchmarks", "examples", "tests"}


def _imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, by its full name."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
    return modules


def _forbidden(package: str, module: str) -> bool:
    top = module.partition(".")[0]
    if top in OUTSIDE:
        return True
    if top not in ALLOWED or top == package:
        return False
    if package == "backbone" and top == "model_store":
        return module not in PURE_ARITHMETIC
    return top not in ALLOWED[package]


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_downwards_only(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in _imported_modules(path)
        if _forbidden(package, module)
    ]
    assert wrong == []


def test_the_rule_itself_catches_an_upward_import() -> None:
    assert _forbidden("kernels", "server.engine")
    assert _forbidden("router", "backbone")
    assert _forbidden("backbone", "model_store.store")
    assert not _forbidden("backbone", "model_store.merging")


def test_the_arithmetic_needs_torch_alone() -> None:
    """A GPU machine may have nothing else: importing these must not import the service's dependencies."""
    code = "import sys, kernels, router, backbone; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"pydantic", "fastapi", "safetensors", "fsspec", "typer", "PIL", "transformers"}


def test_kernels_is_our_package() -> None:
    """A package of this name exists elsewhere, and transformers probes for it."""
    import kernels

    assert Path(kernels.__file__).parent == ROOT / "kernels"
