"""For all tests: models, stores and servers that are made once and shared, and what is optional."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings

from tests import optional
from tests.interpreter import InterpretedRuns
from tests.server_processes import RunningServer, StartServer, running

if TYPE_CHECKING:
    from tests.models import Suite


# How long an example takes on a loaded machine says nothing of it.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nothing-missing", action="store_true", help="fail where a test would skip for want of a package"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    optional.need(item)


@pytest.fixture(scope="session", autouse=True)
def _float32() -> Iterator[None]:
    """What tests expect is float32's, whatever this machine multiplies faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cpu.get_capabilities", dict)
        patch.setenv("MASS_DTYPE", "float32")  # in processes that tests start, too
        yield


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """A tiny pretrained model and three fine-tuned ones; read only."""
    # Here, because transformers takes seconds to import, and many tests need no model.
    from tests.models import make_suite

    return make_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="session")
def built(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the first two tasks of the suite; read only."""
    return _build(suite, 2, tmp_path_factory.mktemp("built") / "store")


@pytest.fixture(scope="session")
def built_of_all(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of all three tasks of the suite; read only."""
    return _build(suite, 3, tmp_path_factory.mktemp("built_of_all") / "store")


@pytest.fixture(scope="session")
def text_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that reads texts, with two tasks of these and one of their tokens; read only."""
    from mass_serve.model_store.build_options import BuildOptions
    from mass_serve.model_store.build_store import build
    from tests import texts

    folder = tmp_path_factory.mktemp("texts")
    models = texts.finetuned(folder, "Bert", ("guard", "domain"), of_tokens=("names",))
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True))
    return folder / "store"


@pytest.fixture(scope="session")
def many_tasks(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 500 tasks that are tiny, and alike; read only."""
    from tests.many_tasks import make_store_of_many_tasks

    return make_store_of_many_tasks(suite, tmp_path_factory.mktemp("many_tasks") / "store")


def _build(suite: Suite, tasks: int, out: Path) -> Path:
    """Of blocks that are not rounded: tests compute the same answers from the models themselves."""
    from mass_serve.model_store.build_options import BuildOptions
    from mass_serve.model_store.build_store import build

    build(suite.pretrained, suite.tasks[:tasks], out, BuildOptions(format="bfloat16"))
    return out


@pytest.fixture
def store(built_of_all: Path, tmp_path: Path) -> Path:
    """A store of three tasks that a test may change."""
    return shutil.copytree(built_of_all, tmp_path / "store")


@pytest.fixture
def store_of_two(built: Path, tmp_path: Path) -> Path:
    """A store of two tasks that a test may change: the suite has one more to add."""
    return shutil.copytree(built, tmp_path / "store")


@pytest.fixture
def _logging_restored() -> Iterator[None]:
    """For tests of what sets the process's logging up."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers with settings of a test's own."""
    with ExitStack() as stack:

        def start(load_seconds: float = 0.0, **settings: object) -> RunningServer:
            return stack.enter_context(running(load_seconds, settings))

        yield start


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """One server with small limits for all tests that leave it as it was."""
    limits: dict[str, object] = {
        "max_body_bytes": 200_000,
        "max_pixels": 1_000_000,
        "max_images_per_request": 8,
        "queue_images": 64,
        "max_batch_images": 8,
        "log_level": "error",
    }
    with running(0.0, limits) as made:
        made.wait_until_ready()
        yield made


@pytest.fixture(scope="session")
def interpreted(request: pytest.FixtureRequest) -> Iterator[InterpretedRuns]:
    """Runs in the interpreter, begun together, of all files that the tests of this session ask for."""
    calls = (item.callspec.params for item in request.session.items if hasattr(item, "callspec"))
    runs = InterpretedRuns(params["fused_tests"] for params in calls if "fused_tests" in params)
    yield runs
    runs.close()
