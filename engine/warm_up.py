"""What a GPU's first batches would wait for, done before an engine answers: kernels and graphs of passes."""

from __future__ import annotations

import torch

from mass_serve.backbone import Passes, PatchEmbedding
from mass_serve.backbone.device_turn import device_turn
from mass_serve.engine.heads import Heads
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.options import EmbeddingPooling
from mass_serve.engine.search import TaskSearch
from mass_serve.engine.second_passes import SecondPass
from mass_serve.kernels.backend import backend_for
from mass_serve.router import MAX_SECOND_PASSES


@torch.inference_mode()
def warm_up(
    loaded: LoadedStore,
    passes: Passes,
    search: TaskSearch,
    heads: Heads,
    max_batch: int,
    pooling: EmbeddingPooling,
) -> None:
    """Runs every head, and each kind of pass that a batch of up to `max_batch` images may need.

    It does so in each size that has a graph; a batch that another engine answers on the device meanwhile
    waits for one size, not for all. Nothing is done where kernels are not compiled.
    """
    if backend_for(loaded.device) == "reference":
        return
    architecture, like = loaded.architecture, loaded.bank.like
    with device_turn(loaded.device):
        for head in loaded.heads:
            if head.each_token:
                head.head.logits(like.new_zeros(1, architecture.width))
        each = [SecondPass(0, (task,)) for task, head in enumerate(loaded.heads) if not head.each_token]
        heads.results(heads.ask(each, like.new_zeros(len(each), architecture.embedding_dim)))
    embedded = architecture.embedding
    if not isinstance(embedded, PatchEmbedding):
        return
    # A set of no task: a graph holds places of weights, not the weights.
    sets = [loaded.bank.expert_set((), materialised=False)]
    num_patches = embedded.num_tokens - embedded.tokens_before_patches
    of_first_passes = passes.graph_sizes(max_batch)
    for size in passes.graph_sizes(MAX_SECOND_PASSES * max_batch):
        with device_turn(loaded.device):
            patches = like.new_zeros(size, num_patches, embedded.patch_width)
            passes.second(patches, sets, [0, size])
            if pooling != "own":
                passes.states(patches, sets, [0, size])
            if size in of_first_passes:
                for block, tokens in search.warm_up(patches).items():
                    passes.second(tokens, sets, [0, size], block)
