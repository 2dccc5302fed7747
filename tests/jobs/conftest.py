"""Small engines that answer at once, and files for them to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mass_serve.engine import Engine
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from tests import texts
from tests.jobs.made import tiny_engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Of images."""
    return tiny_engine()


@pytest.fixture(scope="session")
def text_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that reads texts, with a task that classifies tokens; read only."""
    folder = tmp_path_factory.mktemp("texts")
    models = texts.finetuned(folder, "Bert", ("guard", "domain"), of_tokens=("names",))
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True))
    return folder / "store"


@pytest.fixture(scope="session")
def text_engine(text_store: Path) -> Engine:
    """Of texts."""
    return Engine.load(str(text_store), device="cpu")
