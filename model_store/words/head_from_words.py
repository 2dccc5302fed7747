"""A zero-shot head: the class vectors are the text embeddings of the class names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.heads import LOGIT_SCALE, WEIGHT, HeadTensors, head_from_tensors
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.words.checkpoint import read_text_tower
from mass_serve.model_store.words.prompts import check_class_names, check_templates, fill_in
from mass_serve.model_store.words.text_tower import TextTower
from mass_serve.model_store.words.tokenizer import ClipTokenizer, read_tokenizer

# Prompts that go through the text tower at a time: more need memory and win no time on a CPU.
_BATCH = 128


def head_from_words(
    pretrained: Path,
    classnames: Sequence[str],
    templates: Sequence[str],
    *,
    tokenizer: Path | None = None,
    allow_pickle: bool = False,
    progress: Progress = silent,
) -> HeadTensors:
    """Computes a cosine head [C, P] from C class names and M templates, as CLIP's authors do.

    weight_c = normalise(mean over m of normalise(text_tower(template_m with classname_c)))

    `pretrained` is a whole CLIP, whose `exp(logit_scale)` the head takes, and `tokenizer` a folder with its
    tokenizer where that does not lie beside it. Raises CheckpointError for words, weights and tokenizers that
    cannot be used. (Radford et al., arXiv:2103.00020, section 3.1.4.)
    """
    check_class_names(classnames, "the list of class names")
    check_templates(templates, "the list of templates")
    tower = read_text_tower(pretrained, allow_pickle)
    beside = pretrained if pretrained.is_dir() else pretrained.parent
    words = read_tokenizer(tokenizer or beside, tower.architecture)
    vectors = []
    for name in classnames:
        vectors.append(_class_vector(tower, words, fill_in(templates, name)))
        progress("embedding class names", len(vectors), len(classnames))
    tensors = {WEIGHT: torch.stack(vectors), LOGIT_SCALE: torch.tensor(tower.logit_scale)}
    try:
        return head_from_tensors(tensors)
    except ValueError as error:
        raise CheckpointError(f"{pretrained}: its text tower makes no head: {error}") from error


@torch.no_grad()
def _class_vector(tower: TextTower, tokenizer: ClipTokenizer, prompts: Sequence[str]) -> Tensor:
    """Computes the class vector [P] of one class's prompts: it does not depend on the other classes."""
    embeddings = torch.cat(list(_embeddings(tower, tokenizer, prompts)))
    return F.normalize(F.normalize(embeddings, dim=1).mean(0), dim=0)


def _embeddings(tower: TextTower, tokenizer: ClipTokenizer, prompts: Sequence[str]) -> Iterator[Tensor]:
    for start in range(0, len(prompts), _BATCH):
        yield tower.embed(tokenizer.ids(prompts[start : start + _BATCH]))
