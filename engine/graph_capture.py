"""The graphs of an engine's passes, captured before it answers."""

from __future__ import annotations

import torch

from mass_serve.backbone import Passes, PatchEmbedding, device_turn
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.options import EmbeddingPooling
from mass_serve.engine.search import TaskSearch
from mass_serve.router import MAX_SECOND_PASSES


@torch.inference_mode()
def capture_graphs(
    loaded: LoadedStore, passes: Passes, search: TaskSearch, max_batch: int, pooling: EmbeddingPooling
) -> None:
    """Runs each kind of pass that a batch of up to `max_batch` images may need, in each size with a graph.

    A batch that another engine answers on the device meanwhile waits for one size, not for all of them.
    """
    embedding = loaded.architecture.embedding
    if not isinstance(embedding, PatchEmbedding):
        return
    # A set of no task: a graph holds places of weights, not the weights.
    like, sets = next(iter(loaded.pretrained.values())), [loaded.bank.expert_set((), materialised=False)]
    of_first_passes = passes.graph_sizes(max_batch)
    for size in passes.graph_sizes(MAX_SECOND_PASSES * max_batch):
        with device_turn(loaded.device):
            patches = like.new_zeros(
                size, embedding.num_tokens - embedding.tokens_before_patches, embedding.patch_width
            )
            passes.second(patches, sets, [0, size])
            if pooling != "own":
                passes.states(patches, sets, [0, size])
            if size in of_first_passes:
                for block, tokens in search.warm_up(patches).items():
                    passes.second(tokens, sets, [0, size], block)
