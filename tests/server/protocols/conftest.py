"""A store of tiny text classifiers, and a real server of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mass_serve.engine import Engine
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.router import MODE_NAMES
from tests.server_processes import RunningServer, serving


@pytest.fixture(scope="session")
def text_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Here, because transformers takes seconds to import, and most tests of protocols need no model.
    from tests import texts

    folder = tmp_path_factory.mktemp("texts")
    models = texts.finetuned(folder, "Bert")
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True), modes=MODE_NAMES)
    return folder / "store"


@pytest.fixture(scope="session")
def text_engine(text_store: Path) -> Engine:
    return Engine.load(str(text_store), device="cpu")


@pytest.fixture(scope="session")
def text_server(text_store: Path) -> Iterator[RunningServer]:
    with serving(text_store, grpc_port=0, max_text_characters=20_000, max_images_per_request=16) as running:
        running.wait_until_ready()
        yield running
