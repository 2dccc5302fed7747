"""Entities are those of transformers' own pipeline, for every strategy and every kind of tokenizer."""

from __future__ import annotations

import warnings
from typing import Any, get_args

import numpy as np
import pytest
import torch
import transformers

from mass_serve.engine import Aggregation
from mass_serve.engine.entities import entities
from mass_serve.inputs.texts import Places, TextTokenizer
from tests import texts, trained_tokenizers
from tests.trained_tokenizers import MAX_TOKENS, TEXTS, TRAINED

PLAIN = ("O", "person", "credit-card", "date", "place", "I-place")


def _pipeline(kind: str, labels: tuple[str, ...]) -> Any:
    tokenizer = trained_tokenizers.of_transformers(TRAINED[kind]())
    vocabulary = len(tokenizer)
    model = texts.make_model(kind, "ForTokenClassification", num_labels=len(labels), vocab_size=vocabulary)
    model.config.id2label = dict(enumerate(labels))
    return transformers.pipeline("token-classification", model=model, tokenizer=tokenizer)


@pytest.mark.parametrize("labels", [texts.ENTITY_LABELS, PLAIN], ids=["marked", "plain"])
@pytest.mark.parametrize("kind", TRAINED)
@torch.inference_mode()
def test_entities_are_those_of_the_pipeline(kind: str, labels: tuple[str, ...]) -> None:
    theirs = _pipeline(kind, labels)
    ours = TextTokenizer(theirs.tokenizer._tokenizer.to_str().encode(), MAX_TOKENS)
    for text in [*TEXTS, " ".join(TEXTS * 3)]:
        tokens = ours.tokens(text, placed=True)
        assert tokens.places is not None
        logits = theirs.model(input_ids=torch.from_numpy(tokens.words[None, :, 0])).logits[0]
        scores = logits.softmax(1)
        for aggregation in get_args(Aggregation):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of words, which not all tokenizers know
                wanted = theirs(text, aggregation_strategy=aggregation)
            found = entities(labels, scores, tokens.places, aggregation)
            label = "entity" if aggregation == "none" else "entity_group"
            assert [(one.label, one.start, one.end) for one in found] == [
                (one[label], one["start"], one["end"]) for one in wanted
            ], (text, aggregation)
            assert np.allclose([one.score for one in found], [one["score"] for one in wanted], atol=1e-6)
            assert all(one.text == text[one.start : one.end] for one in found)


def _found(labels: list[str], aggregation: Aggregation, continues: list[bool] | None = None) -> list[str]:
    """The entities of a text of tokens of one character that are surely so labelled."""
    names = sorted(set(labels) | {"O"})
    text = "abcdefgh"[: len(labels)]
    offsets = np.array([(-1, -1), *((at, at + 1) for at in range(len(text))), (-1, -1)])
    places = Places(text, offsets, np.array([False, *(continues or [False] * len(text)), False]))
    likely = torch.eye(len(names))[[0, *(names.index(label) for label in labels), 0]]
    return [f"{one.label} {one.text}" for one in entities(names, likely, places, aggregation)]


def test_labels_are_joined_by_their_marks() -> None:
    assert _found(["B-X", "I-X", "B-X", "I-Y", "O", "I-Y"], "simple") == ["X ab", "X c", "Y d", "Y f"]
    assert _found(["B-X", "I-X"], "none") == ["B-X a", "I-X b"]
    assert _found(["X", "X", "Y", "I-Y"], "simple") == ["X ab", "Y cd"]
    assert _found(["B-X", "O", "I-Y"], "first", [False, True, True]) == ["X abc"]
    assert _found(["O", "O"], "simple") == []


def test_the_marks_around_a_text_are_no_entities() -> None:
    labels = ("PER", "O")
    places = Places("a", np.array([(-1, -1), (0, 1), (-1, -1)]), np.zeros(3, bool))
    likely = torch.tensor([(0.9, 0.1)] * 3)
    (found,) = entities(labels, likely, places, "simple")
    assert (found.start, found.end, found.tokens) == (0, 1, range(1, 2))
