"""A model as it is to be written: an encoder, what it reads, and where there is one a head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mass_serve.backbone.architecture import Architecture
from mass_serve.model_store.format.heads import HeadTensors
from mass_serve.model_store.format.preprocessing import CutEnd, Preprocessing
from mass_serve.model_store.readers.text_tokenizers import StoredTokenizer


@dataclass(frozen=True)
class TextInputs:
    """What makes tokens of a text."""

    tokenizer: StoredTokenizer
    max_tokens: int
    cut_end: CutEnd


PlainInputs = Preprocessing | TextInputs


@dataclass(frozen=True)
class PlainModel:
    """One encoder without blocks, and the head of one task, or none."""

    architecture: Architecture
    parameters: Mapping[str, Tensor]  # by canonical name
    inputs: PlainInputs
    head: HeadTensors | None = None
    labels: tuple[str, ...] = ()  # of the head, in its row order

    @property
    def classifies_tokens(self) -> bool:
        """Whether its head takes each token of a text."""
        return self.head is not None and self.head.each_token
