"""From the scores of a text's tokens to the entities in it: aggregation, as transformers' pipeline does it.

    entities(labels, probabilities, places, "simple")  # [Entity(label="PER", score=0.99, ...)]

The strategies are those of `transformers.pipeline("token-classification", aggregation_strategy=...)`:

    none     every token by itself, with its likeliest label
    simple   neighbouring tokens of one label are one entity; B-X begins another, I-X and X go on
    first    before that, all tokens of a word get the label of its first one
    average  before that, all tokens of a word get the likeliest label of the mean of their scores
    max      before that, all tokens of a word get the label of the one that is surest

The score of an entity is the mean over its tokens, or words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from mass_serve.engine.choices import Aggregation
from mass_serve.inputs.texts import Places

# The label of what is no entity.
OUTSIDE = "O"
_BEGINS, _GOES_ON = "B-", "I-"


@dataclass(frozen=True)
class Entity:
    """Some neighbouring tokens of a text, and what they are."""

    label: str  # without B- and I- where tokens are aggregated
    score: float  # 0 to 1
    start: int  # its first character, as Python's str counts them: in Unicode code points
    end: int  # the one behind its last
    text: str  # what stands there
    tokens: range  # which of the text's tokens it is made of


@dataclass(frozen=True)
class _Piece:
    """A token or a word, and its label."""

    label: str
    score: float
    tokens: range


def entities(
    labels: Sequence[str],
    probabilities: Tensor,
    places: Places,
    aggregation: Aggregation,
    ignored: Collection[str] = (OUTSIDE,),
) -> list[Entity]:
    """The entities of a text whose n tokens have probabilities [n, C] of C labels, in the text's order.

    Those whose label is `ignored` are left out. Tokens that mark begin and end of the text are none of it.
    """
    tokens = [token for token, (start, _) in enumerate(places.offsets.tolist()) if start >= 0]
    words = [range(token, token + 1) for token in tokens]
    if aggregation not in ("none", "simple"):
        words = _words(tokens, places)
    if not words:
        return []
    scores, rows = _of_words(probabilities, words, aggregation).max(1)
    pieces = [
        _Piece(labels[row], score, word)
        for row, score, word in zip(rows.tolist(), scores.tolist(), words, strict=True)
    ]
    if aggregation != "none":
        pieces = [_joined(group) for group in _groups(pieces)]
    return [_entity(piece, places) for piece in pieces if piece.label not in ignored]


def _words(tokens: Sequence[int], places: Places) -> list[range]:
    """Tokens in the words that they are parts of."""
    words: list[range] = []
    for token in tokens:
        if words and places.continues[token]:
            words[-1] = range(words[-1].start, token + 1)
        else:
            words.append(range(token, token + 1))
    return words


def _of_words(probabilities: Tensor, words: Sequence[range], aggregation: Aggregation) -> Tensor:
    """The scores [W, C] of words, of those [n, C] of all tokens."""
    if aggregation == "average":
        lengths = torch.tensor([len(word) for word in words])
        tokens = torch.tensor([token for word in words for token in word])
        summed = probabilities.new_zeros(len(words), probabilities.shape[1])
        summed.index_add_(0, torch.arange(len(words)).repeat_interleave(lengths), probabilities[tokens])
        return summed / lengths.unsqueeze(1)
    if aggregation == "max":
        height = probabilities.amax(1).tolist()
        return probabilities[[max(word, key=height.__getitem__) for word in words]]
    return probabilities[[word[0] for word in words]]


def _groups(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Neighbours of one label together, where none after the first begins with B-."""
    groups: list[list[_Piece]] = []
    for piece in pieces:
        goes_on = not piece.label.startswith(_BEGINS)
        if groups and goes_on and _kind(piece.label) == _kind(groups[-1][-1].label):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _kind(label: str) -> str:
    return label[len(_BEGINS) :] if label.startswith((_BEGINS, _GOES_ON)) else label


def _joined(group: Sequence[_Piece]) -> _Piece:
    # The pipeline takes whatever stands before the first hyphen for a mark, and so do its users.
    label = group[0].label.split("-", 1)[-1]
    score = fmean(piece.score for piece in group)
    return _Piece(label, score, range(group[0].tokens.start, group[-1].tokens.stop))


def _entity(piece: _Piece, places: Places) -> Entity:
    start, end = int(places.offsets[piece.tokens[0], 0]), int(places.offsets[piece.tokens[-1], 1])
    return Entity(piece.label, piece.score, start, end, places.text[start:end], piece.tokens)
