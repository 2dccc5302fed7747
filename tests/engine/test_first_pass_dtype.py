"""First passes in whole numbers: an engine's `first_pass_dtype`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mass_serve.backbone import forms_of, weight_of
from mass_serve.backbone.architecture import BlockNames
from mass_serve.engine import AnyAnswer, Classification, Engine, EngineOptions, Query, TextQuery
from mass_serve.engine.execution import Execution
from mass_serve.evaluation.variants import Variants
from mass_serve.kernels import QuantisedWeight
from mass_serve.kernels.backend import backend
from mass_serve.kernels.quantised import multiplies_int8
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.router import MODE_NAMES, PAPER, ModeName
from tests import texts, tiny

DEEP = replace(tiny.CONFIG, depth=6)
PIXELS = tiny.pixels(7, DEEP)
LENGTHS = (3, 40, 17, 1, 80, 17)
IN_ORDER = multiplies_int8()  # asked here, as tests are told of no processor's abilities


def facts(answer: AnyAnswer | None) -> tuple[Any, ...]:
    """All that is answered, bit by bit."""
    assert isinstance(answer, Classification)
    routing = (answer.expert_set, answer.coefficients, answer.residuals, answer.familiarity, answer.passes)
    return answer.task, answer.logits.tolist(), *routing


def of_images(mode: ModeName, dtype: torch.dtype, **options: Any) -> Engine:
    loaded = tiny.loaded_store(mode=mode, config=DEEP, dtype=dtype)
    return Engine(loaded, Execution.LOW_RANK, 1 << 30, **options)


@pytest.fixture(scope="module")
def text_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    models = texts.finetuned(folder, "Bert", num_hidden_layers=6)
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True))
    return folder / "store"


def assert_the_same_bits_in_every_batch(engine: Engine, queries: list[Any]) -> None:
    together = [facts(one) for one in engine.classify_batch(queries).all_answers()]
    backwards = [facts(one) for one in engine.classify_batch(queries[::-1]).all_answers()]
    alone = [facts(engine.classify_batch([query]).answers[0]) for query in queries]
    assert together == backwards[::-1] == alone


@pytest.mark.parametrize("mode", MODE_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_has_the_same_bits_alone_and_in_a_batch(mode: ModeName, dtype: torch.dtype) -> None:
    engine = of_images(mode, dtype, first_pass_dtype="int8")
    assert_the_same_bits_in_every_batch(engine, [Query(image) for image in PIXELS])


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_a_text_has_the_same_bits_alone_and_in_a_batch(mode: ModeName, text_store: Path) -> None:
    engine = Engine.load(str(text_store), device="cpu", mode=mode, first_pass_dtype="int8")
    assert_the_same_bits_in_every_batch(engine, [TextQuery(own) for own in texts.texts(LENGTHS).words])


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_what_routes_changes_and_what_answers_does_not(mode: ModeName) -> None:
    plain, whole = (of_images(mode, torch.float32, first_pass_dtype=dtype) for dtype in ("same", "int8"))
    routed = [list(map(facts, _routed(one))) for one in (plain, whole)]
    assert routed[0] != routed[1]
    for name in plain.tasks:
        queries = [Query(image, (name,)) for image in PIXELS]
        named = [list(map(facts, one.classify_batch(queries).all_answers())) for one in (plain, whole)]
        assert named[0] == named[1]


def _routed(engine: Engine) -> list[Classification]:
    return engine.classify_batch([Query(image) for image in PIXELS]).all_answers()


@pytest.mark.parametrize("mode", ["exact", PAPER])
def test_it_takes_a_byte_a_number_of_the_linears_and_nothing_else(store: Path, mode: ModeName) -> None:
    plain, whole = (
        Engine.load(str(store), device="cpu", dtype="float32", mode=mode, first_pass_dtype=dtype)
        for dtype in ("same", "int8")
    )
    source, forms = plain._first_pass.source, forms_of(whole._first_pass.parameters)
    patches = plain.architecture.embedding.linears
    linears = {weight_of(linear) for linear in plain.architecture.linears if linear not in patches}
    assert {name for name, form in forms.items() if isinstance(form, QuantisedWeight)} == linears & set(
        source
    )
    numbers = {name: source[name].shape.numel() + 4 * source[name].shape[0] for name in linears & set(source)}
    last_qkv = weight_of(BlockNames(plain.architecture.depth - 1).qkv)
    # Its query, and its keys and values, are there a second time, where products have an order of their own.
    expected = sum(numbers.values()) + (numbers.get(last_qkv, 0) if IN_ORDER else 0)
    assert whole.nbytes["first_pass"] - plain.nbytes["first_pass"] == expected
    assert whole.nbytes["pretrained"] == plain.nbytes["pretrained"]
    own = whole._loaded.first_pass
    assert all(form is forms_of(own)[name] for name, form in forms.items() if name not in linears)


def test_the_next_revision_shares_it_where_the_encoder_stayed(store: Path) -> None:
    options = EngineOptions(device="cpu", first_pass_dtype="int8")
    before = Engine.open(str(store), options)
    after = Engine.open(str(store), options, previous=before)
    assert after._first_pass.parameters is before._first_pass.parameters
    assert after.nbytes == before.nbytes
    plain = Engine.open(str(store), EngineOptions(device="cpu"), previous=before)
    assert not any(
        isinstance(form, QuantisedWeight) for form in forms_of(plain._first_pass.parameters).values()
    )
    assert Engine.open(str(store), options, previous=plain).nbytes == before.nbytes


def test_it_is_refused_where_fused_kernels_would_read_it() -> None:
    loaded = tiny.loaded_store(mode="exact")
    with backend("fused"), pytest.raises(ValueError, match=r"^first_pass_dtype: int8 .*: use same$"):
        Engine(loaded, Execution.LOW_RANK, 1 << 30, first_pass_dtype="int8")


def test_it_is_what_is_evaluated() -> None:
    loaded = tiny.loaded_store(mode="exact", config=DEEP)
    variants = Variants(loaded, Execution.LOW_RANK, 1 << 30, first_pass_dtype="int8")
    expected = of_images("exact", torch.float32, first_pass_dtype="int8")
    assert list(map(facts, _routed(variants.engine()))) == list(map(facts, _routed(expected)))


def test_what_is_evaluated_in_several_modes_and_with_other_ranks_is_quantised_once() -> None:
    loaded = tiny.loaded_store(mode="exact", config=DEEP)
    loaded = replace(loaded, first_pass=loaded.pretrained)
    variants = Variants(loaded, Execution.LOW_RANK, 1 << 30, first_pass_dtype="int8")
    weights = variants.engine()._first_pass.parameters
    engines = [variants.engine(mode) for mode in MODE_NAMES if mode != PAPER]
    for engine in (*engines, variants.of_first_tasks(2)):
        assert engine._first_pass.parameters is weights
    assert variants.engine(PAPER)._first_pass.parameters is not weights  # of weights of its own
    assert variants.engine("exact")._first_pass.parameters is weights
