"""From words to tokens (arXiv:1810.04805, section 3.2).

    x = LayerNorm(words[id] + positions[place] + types[type - 1])

without positions where the blocks have rotary ones, and without types where there is one or the type is the
first, whose row is a part of the positions. A word is [2] int64: its id and its type.
"""

from __future__ import annotations

from torch import Tensor

from mass_serve.backbone.architecture import WordEmbedding
from mass_serve.backbone.packed import Packed
from mass_serve.backbone.weights.protocol import EncoderWeights


def embed_words(part: WordEmbedding, weights: EncoderWeights, texts: Packed, eps: float) -> Tensor:
    """The tokens [N, 1, D] of texts whose rows are words [N, 2].

    Raises ValueError for a text that is longer than the encoder takes.
    """
    if max(texts.lengths) > part.max_tokens:
        raise ValueError(f"a text has {max(texts.lengths)} tokens, this encoder takes {part.max_tokens}")
    ids, types = texts.rows.unbind(1)
    x = weights.words(part.words, ids)
    if part.has_positions:
        x = weights.add_rows(part.positions, x, texts.places())
    if part.num_types > 1:
        x = weights.add_rows(part.types, x, types - 1)
    return weights.layer_norm(part.norm, x, eps)
