"""What is measured of a store when it is made, and what serves it afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mass_serve.backbone import Probe, passes_for
from mass_serve.backbone.architecture import Token
from mass_serve.engine import Engine
from mass_serve.engine.drawn_inputs import drawn_inputs
from mass_serve.engine.evidence_search import EvidenceSearch
from mass_serve.engine.execution import Execution
from mass_serve.engine.exits import measured_prices
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_store
from mass_serve.engine.measuring import measured, unknown_measures
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task, rollback_task
from mass_serve.model_store.store import Store
from mass_serve.router import ModeName
from tests.model_store.readers.test_adapters import save_adapter
from tests.models import Suite, make_suite

FAST = BuildOptions(mode="fast")


def prices_of(store: Store) -> list[float | None]:
    return [task.exit_price for task in store.manifest.tasks]


def loaded_from(store: Store, mode: ModeName = "fast") -> LoadedStore:
    return load_store(store.files.url, torch.device("cpu"), torch.float32, mode)


def engine_of(loaded: LoadedStore) -> Engine:
    return Engine(loaded, Execution.LOW_RANK, 1 << 30)


def search_of(engine: Engine) -> EvidenceSearch:
    assert isinstance(engine._search, EvidenceSearch)
    return engine._search


@pytest.fixture
def priced(suite: Suite, tmp_path: Path) -> Store:
    return build(suite.pretrained, suite.tasks, tmp_path / "store", FAST, measure=measured)


def test_the_price_that_is_kept_is_the_one_that_loading_would_measure(priced: Store) -> None:
    loaded = loaded_from(priced)
    passes = passes_for(loaded.bank, loaded.first_pass, 1)
    prices = measured_prices(loaded, passes, drawn_inputs(loaded), loaded.routed)
    assert prices_of(priced) == pytest.approx(prices.tolist(), abs=1e-6)
    assert prices.min() > 0


def test_a_store_that_has_its_prices_is_not_measured_again(
    priced: Store, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = build(suite.pretrained, suite.tasks, tmp_path / "plain", FAST)
    resuming = search_of(engine_of(loaded_from(plain))).resuming
    asked = []

    def asked_of(_: object, __: object, ___: object, tasks: list[int]) -> torch.Tensor:
        asked.extend(tasks)
        return torch.full((len(tasks),), torch.inf)

    monkeypatch.setattr("mass_serve.engine.evidence_search.measured_prices", asked_of)
    assert search_of(engine_of(loaded_from(priced))).resuming == resuming
    assert asked == []
    assert search_of(engine_of(loaded_from(plain))).resuming == frozenset()
    assert asked == [0, 1, 2]
    engine_of(loaded_from(plain, "balanced"))
    assert asked == [0, 1, 2], "nothing resumes in this mode"


def test_a_recorded_price_decides(priced: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = [price for price in prices_of(priced) if price is not None]
    monkeypatch.setattr("mass_serve.engine.evidence_search.FARTHEST_RESUMED", min(prices))
    cheapest = prices.index(min(prices))
    assert search_of(engine_of(loaded_from(priced))).resuming == {cheapest}


def test_a_price_stays_with_its_revision(suite: Suite, tmp_path: Path) -> None:
    first, second, third = suite.tasks
    store = build(suite.pretrained, [first, second], tmp_path / "store", FAST)
    assert prices_of(store) == [None, None]
    store = add_task(store.files.url, third, measure=unknown_measures)
    prices = prices_of(store)
    assert None not in prices, "an old store's tasks are measured too"
    replaced = add_task(store.files.url, third, replace=True)
    assert prices_of(replaced) == [*prices[:2], None]
    assert prices_of(rollback_task(store.files.url, third.name)) == prices


def test_on_a_merged_base_no_task_has_a_price_of_its_own(suite: Suite, tmp_path: Path) -> None:
    options = BuildOptions(mode="fast", first_pass="merged_base")
    store = build(suite.pretrained, suite.tasks, tmp_path / "store", options, measure=measured)
    assert prices_of(store) == [None, None, None]
    assert store.manifest.router.late_token is None


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Models that have blocks behind those of early evidence."""
    return make_suite(tmp_path_factory.mktemp("deep"), num_hidden_layers=4)


@pytest.fixture
def deep_store(deep: Suite, tmp_path: Path) -> Store:
    return build(deep.pretrained, deep.tasks, tmp_path / "deep", FAST, measure=measured)


def late_token_of(store: Store) -> str | None:
    return search_of(engine_of(loaded_from(store)))._late.token


def test_late_energies_are_of_the_token_that_is_kept(deep_store: Store, deep: Suite, tmp_path: Path) -> None:
    kept = deep_store.manifest.router.late_token
    assert kept is not None
    assert late_token_of(deep_store) == kept
    router = deep_store.manifest.router.model_copy(
        update={"late_token": "mean" if kept == "class" else "class"}
    )
    other = deep_store.manifest.model_copy(update={"router": router})
    deep_store.files.write_bytes(MANIFEST_FILE, other.to_bytes())
    assert late_token_of(deep_store) == router.late_token != kept
    unmeasured = build(deep.pretrained, deep.tasks, tmp_path / "unmeasured", FAST)
    assert unmeasured.manifest.router.late_token is None
    assert late_token_of(unmeasured) == unmeasured.manifest.router.token


def test_the_token_whose_energies_vary_more_is_kept(deep_store: Store) -> None:
    search = search_of(engine_of(loaded_from(deep_store)))
    drawn = drawn_inputs(loaded_from(deep_store))
    variations = {}
    tokens: tuple[Token, ...] = ("class", "mean")
    for token in tokens:
        with torch.inference_mode():
            energies = search._passes.first(
                drawn, probe=Probe(search.router.late_bases, token=token)
            ).energies
        explained = energies.log().mean(1)
        centred = explained - explained.mean(1, keepdim=True)
        variations[token] = float(centred.std(0).mean())
    assert deep_store.manifest.router.late_token == max(variations, key=variations.__getitem__)


def test_an_adapter_leaves_the_token_to_the_rule(deep: Suite, tmp_path: Path) -> None:
    adapter = TaskInput("adapter", save_adapter(tmp_path / "adapter", deep.pretrained))
    store = build(deep.pretrained, [*deep.tasks, adapter], tmp_path / "store", FAST, measure=measured)
    assert store.manifest.router.late_token is None
    assert late_token_of(store) == "mean"
    assert None not in prices_of(store)
