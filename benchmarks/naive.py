"""How the paper's code serves: one dense model rebuilt for each new expert set, sets one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mass_serve.backbone import DenseWeights, ExpertBank, run


def rebuild(bank: ExpertBank, tasks: Sequence[int]) -> dict[str, Tensor]:
    """A dense encoder for a set: both factors orthogonalised by an SVD of the concatenation, in float32."""
    parameters = {}
    for name, pretrained in bank.pretrained.items():
        if name not in bank.ranks:
            parameters[name] = pretrained + torch.stack(
                [bank.dense_delta(name, task) for task in tasks]
            ).mean(0)
            continue
        vectors = bank.singular_vectors(name, tasks)
        u = torch.cat([own.u.float() for own in vectors], dim=1)
        vh = torch.cat([own.vh.float() for own in vectors], dim=0)
        s = torch.cat([own.s for own in vectors])
        if len(tasks) > 1:
            left, _, right = torch.linalg.svd(u, full_matrices=False)
            u = left @ right
            left, _, right = torch.linalg.svd(vh, full_matrices=False)
            vh = left @ right
        parameters[name] = pretrained + (u * s) @ vh
    return parameters


def serve(bank: ExpertBank, sets: Sequence[tuple[int, ...]], patches: Tensor) -> Tensor:
    """Embeddings [B, P] of a batch, sample b with expert set `sets[b]`."""
    embeddings: list[Tensor | None] = [None] * len(sets)
    for tasks in dict.fromkeys(sets):
        members = [sample for sample, own in enumerate(sets) if own == tasks]
        result = run(bank.architecture, DenseWeights(rebuild(bank, tasks)), patches[members]).embedding
        for sample, embedding in zip(members, result, strict=True):
            embeddings[sample] = embedding
    return torch.stack([embedding for embedding in embeddings if embedding is not None])
