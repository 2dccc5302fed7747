"""One small suite of models and one store of it for all tests; copies for those that change them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mass_serve.model_store.build import build
from tests.model_store.models import Suite, make_suite


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """A pretrained model and three fine-tuned ones; read only."""
    return make_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="session")
def built(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the first two tasks of the suite; read only."""
    out = tmp_path_factory.mktemp("built") / "store"
    build(suite.pretrained, suite.tasks[:2], out)
    return out


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    """A store of two tasks that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "store"))
