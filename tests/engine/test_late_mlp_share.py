"""Stores whose first passes compute the MLPs of a part of the tokens behind their first third."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mass_serve.engine import AnyAnswer, Classification, Engine, Query, TextQuery
from mass_serve.engine.execution import Execution
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_store
from mass_serve.engine.measuring import measured
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.store import Store
from mass_serve.router import MODE_NAMES, PAPER, ModeName
from tests import texts, tiny
from tests.models import Suite

CPU = torch.device("cpu")
DEEP = replace(tiny.CONFIG, depth=6)  # two blocks before early evidence is judged, three that share MLPs
LENGTHS = (3, 40, 17, 1, 80, 17)


def facts(answer: AnyAnswer | None) -> tuple[Any, ...]:
    """All that is answered, bit by bit."""
    assert isinstance(answer, Classification)
    routing = (answer.expert_set, answer.coefficients, answer.residuals, answer.familiarity, answer.passes)
    return answer.task, answer.logits.tolist(), *routing


def of_images(mode: ModeName, share: float) -> tuple[LoadedStore, list[Query]]:
    loaded = tiny.loaded_store(mode=mode, config=DEEP)
    router = loaded.router.model_copy(update={"late_mlp_share": share})
    return replace(loaded, router=router), [Query(image) for image in tiny.pixels(7, DEEP)]


@pytest.fixture(scope="module")
def text_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    models = texts.finetuned(folder, "Bert", num_hidden_layers=6)
    options = BuildOptions(late_mlp_share=0.5, force=True)
    build(models.pretrained, models.tasks, folder / "store", options, measure=measured)
    return folder / "store"


def of_texts(store: Path, mode: ModeName, share: float) -> tuple[LoadedStore, list[TextQuery]]:
    loaded = load_store(str(store), CPU, torch.float32, mode)
    router = loaded.router.model_copy(update={"late_mlp_share": share})
    return replace(loaded, router=router), [TextQuery(words) for words in texts.texts(LENGTHS).words]


@pytest.mark.parametrize("kind", ["images", "texts"])
@pytest.mark.parametrize("mode", MODE_NAMES)
def test_an_answer_has_the_same_bits_alone_and_in_a_batch(
    mode: ModeName, kind: str, text_store: Path
) -> None:
    loaded, queries = of_images(mode, 0.5) if kind == "images" else of_texts(text_store, mode, 0.5)
    engine = Engine(loaded, Execution.LOW_RANK, 1 << 30)
    together = [facts(one) for one in engine.classify_batch(queries).all_answers()]
    backwards = [facts(one) for one in engine.classify_batch(queries[::-1]).all_answers()]
    alone = [facts(engine.classify_batch([query]).answers[0]) for query in queries]
    assert together == backwards[::-1] == alone


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_only_what_needs_a_whole_first_pass_changes(mode: ModeName) -> None:
    """The paper's pass shares none; and early evidence, and what second passes resume with, stay the same."""
    whole, shared = (
        list(map(facts, Engine(loaded, Execution.LOW_RANK, 1 << 30).classify_batch(queries).all_answers()))
        for loaded, queries in (of_images(mode, share) for share in (1.0, 0.5))
    )
    if mode in (PAPER, "one_pass"):
        assert shared == whole
    else:
        assert shared != whole
        # Three of six blocks save half of the MLPs, eight of twelve products.
        saved = {round(before[-1] - after[-1], 9) for before, after in zip(whole, shared, strict=True)}
        assert round(3 / 6 * 1 / 2 * 8 / 12, 9) in saved


def test_a_store_keeps_the_share_that_it_was_built_with(
    suite: Suite, text_store: Path, tmp_path: Path
) -> None:
    assert Store.open(text_store).manifest.router.late_mlp_share == 0.5
    plain = build(suite.pretrained, suite.tasks, tmp_path / "store", BuildOptions())
    assert plain.manifest.router.late_mlp_share == 1
    assert b"late_mlp_share" not in plain.manifest.to_bytes()
