"""Heads made of words, held to the published recipe on top of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.heads import LOGIT_SCALE, WEIGHT
from mass_serve.model_store.words import head_from_words
from tests.text_models import make_clip, make_tokenizer, save_clip, save_vocabulary, text_features

NAMES = ["cat", "dog", "the photo's", "Ünï {} cödé", "x" * 80]
TEMPLATES = ["a photo of a {}.", "the {c}", "{}, a {name} 100% {{c"]


def published_recipe(model: Any, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """OpenAI's and open_clip's: the mean of normalised prompt embeddings, normalised."""
    tokenizer, rows = make_tokenizer(), []
    for name in names:
        prompts = [template.replace("{c}", "{}").replace("{}", name, 1) for template in templates]
        encoded = tokenizer(prompts, padding=True, truncation=True, max_length=24, return_tensors="pt")
        mean = F.normalize(text_features(model, encoded["input_ids"]), dim=1).mean(0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("clip")
    return folder, save_clip(folder)


def test_a_head_is_that_of_the_published_recipe(clip: tuple[Path, Any]) -> None:
    folder, model = clip
    steps: list[tuple[str, int, int]] = []
    head = head_from_words(folder, NAMES, TEMPLATES[:2], progress=lambda *step: steps.append(step))
    assert head.kind == "cosine"
    assert head.shape == (5, 16)
    assert (head.tensors[WEIGHT] - published_recipe(model, NAMES, TEMPLATES[:2])).abs().max() < 1e-6
    assert head.tensors[LOGIT_SCALE].item() == pytest.approx(model.logit_scale.exp().item())
    assert steps == [("embedding class names", done, 5) for done in range(1, 6)]


def test_only_the_placeholder_of_a_template_is_replaced(clip: tuple[Path, Any]) -> None:
    folder, model = clip
    found = head_from_words(folder, NAMES, ["{}, a {name} 100% {"]).tensors[WEIGHT]
    prompts = [f"{name}, a {{name}} 100% {{" for name in NAMES]
    encoded = make_tokenizer()(prompts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    expected = F.normalize(text_features(model, encoded["input_ids"]), dim=1)
    assert (found - expected).abs().max() < 1e-6


def test_more_templates_than_go_through_the_tower_at_a_time(clip: tuple[Path, Any]) -> None:
    folder, model = clip
    templates = [f"{'a ' * (index % 7)}photo {index} of {{}}" for index in range(150)]
    found = head_from_words(folder, NAMES[:2], templates).tensors[WEIGHT]
    assert (found - published_recipe(model, NAMES[:2], templates)).abs().max() < 1e-6


def test_a_class_has_the_same_bits_whatever_the_others_are(clip: tuple[Path, Any]) -> None:
    folder, _ = clip
    together = head_from_words(folder, NAMES, TEMPLATES[:2]).tensors[WEIGHT]
    for row, name in enumerate(NAMES):
        assert torch.equal(head_from_words(folder, [name], TEMPLATES[:2]).tensors[WEIGHT][0], together[row])


def test_the_tokenizer_may_lie_elsewhere(clip: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = clip
    model.save_pretrained(tmp_path / "bare")
    with pytest.raises(CheckpointError, match=r"bare has neither tokenizer\.json .* with --tokenizer"):
        head_from_words(tmp_path / "bare", NAMES, TEMPLATES[:2])
    save_vocabulary(tmp_path / "words")
    found = head_from_words(tmp_path / "bare", NAMES, TEMPLATES[:2], tokenizer=tmp_path / "words")
    assert torch.equal(found.tensors[WEIGHT], head_from_words(folder, NAMES, TEMPLATES[:2]).tensors[WEIGHT])


@pytest.mark.parametrize(
    ("names", "templates", "sentence"),
    [
        ([], ["{}"], "the list of class names holds no class name, and a head needs one or more"),
        (["cat", " "], ["{}"], "holds an empty class name"),
        (["cat", "dog", "cat"], ["{}"], "holds the class name 'cat' twice"),
        (["cat\n"], ["{}"], "holds a class name with control characters"),
        (["\ud800"], ["{}"], "the list of class names holds half of a surrogate pair"),
        (["cat"], [], "the list of templates holds no template"),
        (
            ["cat"],
            ["a photo"],
            "holds the template 'a photo', which has 0 places for a class name: it must have",
        ),
        (["cat"], ["{} and {c}"], "which has 2 places"),
        (["cat"], ["{0}"], "which has 0 places"),
        (["cat"], ["{}", "{}"], "holds the template '{}' twice"),
        (["cat"], ["\x1b[2J{}"], "holds a template with control characters"),
    ],
)
def test_words_that_make_no_head_are_refused(
    names: list[str], templates: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        head_from_words(tmp_path, names, templates)


def test_a_text_tower_that_gives_no_numbers_makes_no_head(tmp_path: Path) -> None:
    model = make_clip()
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.mul_(1e30)
    model.save_pretrained(tmp_path)
    save_vocabulary(tmp_path)
    with pytest.raises(CheckpointError, match="its text tower makes no head: weight holds NaN, Inf"):
        head_from_words(tmp_path, NAMES, TEMPLATES[:2])
