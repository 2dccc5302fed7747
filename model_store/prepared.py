"""How the inputs of a store's tasks are prepared: as the files beside the pretrained model say.

prepared = prepared_as(pretrained, options)
check_prepares_alike("pets", finetuned, prepared)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mass_serve.backbone.architecture import WordEmbedding
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.errors import CheckpointError, StoreError
from mass_serve.model_store.format.preprocessing import (
    EXACT,
    RIGHT,
    AnyPreprocessing,
    Preprocessing,
    TextPreprocessing,
)
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.readers.preprocessing import has_preprocessing, read_preprocessing
from mass_serve.model_store.readers.same_tokens import check_same_tokens
from mass_serve.model_store.readers.text_lengths import check_same_cut_end, read_cut_end, read_max_tokens
from mass_serve.model_store.readers.text_tokenizers import (
    StoredTokenizer,
    check_uses_table,
    has_tokenizer,
    read_tokenizer,
)


@dataclass(frozen=True)
class Prepared:
    """How the inputs of all tasks of a store are prepared."""

    preprocessing: AnyPreprocessing
    tokenizer: StoredTokenizer | None  # of texts


def prepared_as(checkpoint: Checkpoint, options: BuildOptions) -> Prepared:
    """Reads how the inputs of a model are prepared. Raises CheckpointError where its files do not say so.

    Nor may they be of another model, unless by `force`. Raises StoreError for `max_tokens` out of range, and
    for options of images where it reads texts, or the other way round.
    """
    embedding = checkpoint.architecture.embedding
    if isinstance(embedding, WordEmbedding):
        if options.decode != EXACT:
            raise StoreError("texts are not decoded: the pretrained model reads texts, leave decode out")
        tokenizer = read_tokenizer(checkpoint.folder, embedding.vocabulary, embedding.num_types)
        if not options.force:
            check_uses_table(checkpoint.folder, tokenizer, embedding.vocabulary)
        max_tokens = _max_tokens(checkpoint.folder, embedding, tokenizer, options.max_tokens)
        cut_end = read_cut_end(checkpoint.folder) or RIGHT
        return Prepared(TextPreprocessing(kind="text", max_tokens=max_tokens, cut_end=cut_end), tokenizer)
    if options.max_tokens is not None:
        raise StoreError("texts cannot have max_tokens: the pretrained model reads images")
    described = read_preprocessing(checkpoint.folder, embedding.image_size)
    return Prepared(described.model_copy(update={"decode": options.decode}), None)


def _max_tokens(folder: Path, embedding: WordEmbedding, tokenizer: StoredTokenizer, asked: int | None) -> int:
    """The most tokens of a text: as asked for, or else as the files beside the model say."""
    least, most = tokenizer.num_marks + 1, embedding.max_tokens
    if asked is not None and not least <= asked <= most:
        raise StoreError(
            f"max_tokens must be from {least}, one beside the marks around a text, to {most}, the positions"
            f" that the pretrained model has, not {asked}"
        )
    found = read_max_tokens(folder, most) if asked is None else asked
    if found < least:
        raise CheckpointError(
            f"{folder}: of {found} tokens none is left for a text beside {tokenizer.num_marks} marks; say how"
            " many are read by --max-tokens"
        )
    return found


def check_prepares_alike(task: str, finetuned: Checkpoint, prepared: Prepared) -> None:
    """Raises CheckpointError where a fine-tuned model prepares inputs otherwise than its store does.

    One that does not say how does it as the pretrained one. Forms of one model differ in how they round half
    a pixel of the crop, and may be mixed nevertheless; how much of a file is decoded none of them says. Of
    texts a store reads as many tokens for all tasks.
    """
    if isinstance(embedding := finetuned.architecture.embedding, WordEmbedding):
        if isinstance(prepared.preprocessing, TextPreprocessing):
            check_same_cut_end(task, finetuned.folder, prepared.preprocessing.cut_end)
        if prepared.tokenizer is not None and has_tokenizer(finetuned.folder):
            own_tokens = read_tokenizer(finetuned.folder, embedding.vocabulary, embedding.num_types)
            check_same_tokens(task, own_tokens, prepared.tokenizer, embedding.num_types)
        return
    if not has_preprocessing(finetuned.folder):
        return
    pretrained = prepared.preprocessing
    own = read_preprocessing(finetuned.folder, finetuned.architecture.patches.image_size)
    for field in Preprocessing.model_fields:
        if field in ("crop_rounding", "decode"):
            continue
        found, expected = getattr(own, field), getattr(pretrained, field)
        if found != expected:
            raise CheckpointError(
                f"task {task}: the fine-tuned model prepares images with {field} {found}, the "
                f"pretrained model with {expected}, and a store prepares them in one way"
            )
