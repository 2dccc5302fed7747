"""Which weights the first pass runs on: the mode's own choice, whatever the store was built for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mass_serve.backbone import forms_of
from mass_serve.engine import Query
from mass_serve.engine.execution import Execution
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_store
from mass_serve.evaluation.variants import Variants
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.router import ModeName
from tests import tiny
from tests.models import Suite

CPU, FLOAT32 = torch.device("cpu"), torch.float32


def loaded(store: Path, mode: ModeName | None = None) -> LoadedStore:
    return load_store(str(store), CPU, FLOAT32, mode)


def shares_pretrained(found: LoadedStore) -> bool:
    """Whether every parameter of the first pass is the pretrained one in memory."""
    pretrained = forms_of(found.pretrained)
    return all(form is pretrained[name] for name, form in forms_of(found.first_pass).items())


@pytest.fixture(scope="module")
def papers(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> LoadedStore:
    """A store as the paper has it."""
    folder = tmp_path_factory.mktemp("papers") / "store"
    build(suite.pretrained, suite.tasks, folder, BuildOptions(mode="paper", format="bfloat16"))
    return loaded(folder)


@pytest.mark.parametrize("mode", [None, "one_pass", "fast", "balanced"])
def test_by_default_it_shares_the_pretrained_weights(store: Path, mode: ModeName | None) -> None:
    found = loaded(store, mode)
    assert found.first_pass_nbytes == 0
    assert shares_pretrained(found)
    assert found.first_pass.keys() == found.pretrained.keys()


def test_the_papers_router_looks_at_the_merged_base(store: Path, papers: LoadedStore) -> None:
    """As the same models built in its mode; when a server or an evaluation is told to use it, too."""
    assert papers.first_pass_nbytes > 0
    evaluated = Variants(loaded(store), Execution.LOW_RANK, 1 << 30).engine("paper")._loaded
    for found in (loaded(store, "paper"), evaluated):
        assert found.mode == "paper"
        assert found.first_pass.keys() == papers.first_pass.keys()
        for name, weight in papers.first_pass.items():
            torch.testing.assert_close(found.first_pass[name], weight)
        assert not shares_pretrained(found)


def test_a_calibration_is_of_all_tasks_at_the_stores_rank() -> None:
    variants = Variants(tiny.loaded_store(mode="exact", calibrated=True), Execution.LOW_RANK, 1 << 30)
    queries = [Query(image) for image in tiny.pixels(8)]
    plain = Variants(tiny.loaded_store(mode="exact"), Execution.LOW_RANK, 1 << 30)
    few = (one.of_first_tasks(2).classify_batch(queries).all_answers() for one in (variants, plain))
    assert [answer.coefficients for answer in next(few)] == [answer.coefficients for answer in next(few)]
    assert variants.engine()._loaded.calibration is not None


def test_a_store_that_names_its_first_pass_keeps_it(suite: Suite, tmp_path: Path) -> None:
    build(suite.pretrained, suite.tasks, tmp_path / "a", BuildOptions(mode="paper", first_pass="pretrained"))
    build(suite.pretrained, suite.tasks, tmp_path / "b", BuildOptions(first_pass="merged_base"))
    assert loaded(tmp_path / "a").first_pass_nbytes == 0
    evaluated = Variants(loaded(tmp_path / "a", "exact"), Execution.LOW_RANK, 1 << 30).engine("paper")._loaded
    assert shares_pretrained(evaluated)
    assert loaded(tmp_path / "b").first_pass_nbytes > 0
    assert loaded(tmp_path / "b", "fast").first_pass_nbytes > 0
