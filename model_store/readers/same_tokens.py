"""Whether fine-tuned models read the same tokens of texts as the model that they were made of."""

from __future__ import annotations

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.text_tokenizers import StoredTokenizer, parsed

# Tokenizers of one vocabulary make different tokens of these where they treat case, accents, blanks,
# ideograms or punctuation differently, put other marks around a text or between two, or give them types.
TELLING_TEXTS: tuple[str | tuple[str, str], ...] = (
    "The Cat",
    "a  cat",
    " a cat ",
    "caf\u00e9 cafe\u0301",
    "\u4e2d\u6587",
    "can't, 1.5",
    "a\ncat",
    ("a", "cat"),
)


def check_same_tokens(
    task: str, own: StoredTokenizer, pretrained: StoredTokenizer, token_types: int = 1
) -> None:
    """Raises CheckpointError where a fine-tuned model's tokens are not those of the pretrained one.

    Neither their vocabularies nor what they make of texts and of pairs may differ. A model of one type does
    not look at types.
    """
    if own.vocabulary != pretrained.vocabulary:
        differing = sorted(own.vocabulary.items() ^ pretrained.vocabulary.items())
        raise CheckpointError(
            f"task {task}: its tokenizer has {len(own.vocabulary)} tokens, that of the pretrained model"
            f" {len(pretrained.vocabulary)}, and they differ in {differing[0][0]!r:.80}: all tasks of a store"
            " read the same tokens"
        )
    if own.content == pretrained.content:
        return
    theirs, ours = parsed(f"task {task}", own.content), parsed("the pretrained model", pretrained.content)
    for text in TELLING_TEXTS:
        first, second = (text, None) if isinstance(text, str) else text
        one, other = (tokenizer.encode(first, second) for tokenizer in (theirs, ours))
        differs = "tokens" if one.ids != other.ids else "types of token"
        if one.ids != other.ids or (token_types > 1 and one.type_ids != other.type_ids):
            raise CheckpointError(
                f"task {task}: its tokenizer makes other {differs} of {text!r} than that of the pretrained"
                " model, and all tasks of a store read the same ones: remove it if the task was trained with"
                " the other"
            )
