"""Embeddings by a task's encoder and by the pretrained one, alone and beside queries that want classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BertModel

from mass_serve.engine import AnyQuestion, Classification, Embedding, EmbeddingQuestion, Engine, Question
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from tests import texts

TEXTS = ["w10 w11 w12", "w20", "w30 w31", "w40 w41 w42 w43"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> texts.Finetuned:
    return texts.finetuned(tmp_path_factory.mktemp("models"), "Bert")


@pytest.fixture(scope="module")
def store(models: texts.Finetuned, tmp_path_factory: pytest.TempPathFactory) -> str:
    store = tmp_path_factory.mktemp("store") / "store"
    build(
        models.pretrained,
        models.tasks,
        store,
        BuildOptions(force=True, compression_ratio=1.0, block_dtype="float32"),
    )
    return str(store)


@pytest.fixture(scope="module")
def engine(store: str) -> Engine:
    return Engine.load(store, device="cpu")


def states(model: Any, engine: Engine) -> list[Tensor]:
    """The last hidden states of the tokens of each text, as transformers has them."""
    tokenizer = engine.tokenizer
    assert tokenizer is not None
    words = [torch.from_numpy(tokenizer.tokens(text).words)[None] for text in TEXTS]
    with torch.no_grad():
        return [model(input_ids=one[..., 0], token_type_ids=one[..., 1])[0][0] for one in words]


def pretrained(models: texts.Finetuned) -> Any:
    model: Any = BertModel.from_pretrained(models.pretrained)
    return model.eval()


def test_the_pretrained_encoder_embeds(models: texts.Finetuned, engine: Engine) -> None:
    expected = torch.stack([one[0] for one in states(pretrained(models), engine)])
    torch.testing.assert_close(engine.embed(TEXTS), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("task", texts.NAMES)
def test_a_tasks_encoder_embeds(models: texts.Finetuned, engine: Engine, task: str) -> None:
    expected = torch.stack([one[0] for one in states(models.models[task].bert, engine)])
    torch.testing.assert_close(engine.embed(TEXTS, task), expected, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("task", [None, "domain"])
def test_an_embedding_may_be_the_mean_of_the_tokens(
    models: texts.Finetuned, store: str, task: str | None
) -> None:
    engine = Engine.load(store, device="cpu", embedding_pooling="mean")
    model = pretrained(models) if task is None else models.models[task].bert
    expected = torch.stack([one.mean(0) for one in states(model, engine)])
    torch.testing.assert_close(engine.embed(TEXTS, task), expected, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("pooling", ["own", "mean"])
@pytest.mark.parametrize("execution", ["low_rank", "materialised"])
def test_a_batch_has_embeddings_beside_classes(store: str, pooling: str, execution: str) -> None:
    """With the same bits as alone."""
    engine = Engine.load(store, device="cpu", embedding_pooling=pooling, execution=execution)
    tokenizer = engine.tokenizer
    assert tokenizer is not None
    tokens = [tokenizer.tokens(text) for text in TEXTS]
    asked: list[AnyQuestion] = [
        Question(),
        EmbeddingQuestion(),
        Question(("guard",)),
        EmbeddingQuestion("guard"),
        EmbeddingQuestion("domain"),
    ]
    queries = [query for question in asked for query in question.queries(tokens, engine.tasks)]
    answers = engine.classify_batch([*queries[::2], *queries[1::2]]).answers
    together = [answers[at // 2 + (at % 2) * ((len(queries) + 1) // 2)] for at in range(len(queries))]
    for query, answer in zip(queries, together, strict=True):
        [alone] = engine.classify_batch([query]).answers
        if isinstance(answer, Classification):
            assert isinstance(alone, Classification)
            assert torch.equal(answer.logits, alone.logits)
        else:
            assert isinstance(answer, Embedding)
            assert isinstance(alone, Embedding)
            assert torch.equal(answer.values, alone.values)
    named = [answer.task for answer in together if isinstance(answer, Embedding)]
    assert named == [None] * 4 + ["guard"] * 4 + ["domain"] * 4


def test_images_are_embedded_as_the_heads_have_them(built: Path) -> None:
    engine = Engine.load(str(built), device="cpu")
    generator = torch.Generator().manual_seed(0)
    size = engine.preprocessing.crop
    pixels = torch.randint(0, 256, (3, size, size, 3), generator=generator, dtype=torch.uint8)
    images = [Image.fromarray(one.numpy()) for one in pixels]
    [task, *_] = engine.tasks
    embeddings = engine.embed(images, task)
    answers = engine.classify(images, [task])
    for embedding, answer in zip(embeddings, answers, strict=True):
        torch.testing.assert_close(engine.head(task).logits(embedding[None])[0], answer.logits)
    assert not torch.equal(engine.embed(images), embeddings)


@pytest.mark.parametrize("pooling", ["own", "mean"])
def test_of_nothing_there_are_no_embeddings(store: str, pooling: str) -> None:
    engine = Engine.load(store, device="cpu", embedding_pooling=pooling)
    assert engine.embed([]).shape == (0, *engine.embed(TEXTS).shape[1:])


def test_what_is_not_there_is_told(engine: Engine) -> None:
    with pytest.raises(ValueError, match="cats"):
        engine.embed(TEXTS, "cats")
