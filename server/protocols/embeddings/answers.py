"""From embeddings to what clients are told of them."""

from __future__ import annotations

import base64
import json

import torch
from torch import Tensor

from mass_serve.server.protocols.embeddings.embed_requests import BASE, EmbeddingsRequest
from mass_serve.server.protocols.embeddings.messages import EmbeddingItem, EmbeddingsAnswer, Usage
from mass_serve.server.protocols.vectors import unit_length
from mass_serve.server.serving.request_context import Embeddings


def embeddings_answer(asked: EmbeddingsRequest, found: Embeddings) -> str:
    """Returns the answer to OpenAI's clients in JSON."""
    data = [
        EmbeddingItem(index=index, embedding=_written(vector, asked))
        for index, vector in enumerate(_vectors(asked, found))
    ]
    for item, cut in zip(data, found.cut, strict=False):  # nothing of an image is cut
        item.cut = cut
    usage = Usage(prompt_tokens=found.num_tokens, total_tokens=found.num_tokens)
    return EmbeddingsAnswer(
        data=data, model=asked.model or BASE, usage=usage, store_revision=found.store_revision
    ).model_dump_json()


def embed_answer(asked: EmbeddingsRequest, found: Embeddings) -> str:
    """Returns the answer to text-embeddings-inference's clients in JSON: a list for each text."""
    return json.dumps([vector.tolist() for vector in _vectors(asked, found)])


def _vectors(asked: EmbeddingsRequest, found: Embeddings) -> Tensor:
    """The embeddings [n, P] float32, of unit length if they are wanted so."""
    return unit_length(found.vectors) if asked.normalise else torch.stack(found.vectors)


def _written(vector: Tensor, asked: EmbeddingsRequest) -> list[float] | str:
    if asked.encoding == "float":
        return vector.tolist()
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
