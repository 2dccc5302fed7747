"""What a task loses where its second pass resumes: the first third of the pass stays the pretrained one's.

A price is the mean cosine distance between the embeddings of whole and of resumed second passes of drawn
noise, which is as far as it can be known without data. It is the task's own where the first pass runs on the
pretrained weights, and the manifest keeps it (`engine.measuring`); on a merged base, which all tasks have a
part in, it is measured when a store is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mass_serve.backbone import Batch, Passes
from mass_serve.backbone.device_turn import device_turn
from mass_serve.engine.drawn_inputs import NOISE_INPUTS
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.router import early_stop


def recorded_prices(loaded: LoadedStore) -> Tensor:
    """The prices [T] of the routed tasks as the manifest has them; NaN where it has none."""
    prices = [head.entry.exit_price for head in loaded.routed_heads]
    return torch.tensor([math.nan if price is None else price for price in prices])


@torch.inference_mode()
def measured_prices(
    loaded: LoadedStore, passes: Passes, drawn: Batch, tasks: Sequence[int], stop: int | None = None
) -> Tensor:
    """The prices [n] of these n tasks, by drawn inputs that begin with noise (`engine.drawn_inputs`).

    Second passes resume before the block `stop`; None: where they do in service.
    """
    noise, offsets = drawn[:NOISE_INPUTS], [0, NOISE_INPUTS]
    stop = early_stop(loaded.architecture.depth) if stop is None else stop
    with device_turn(loaded.device):
        entering, found = passes.first(noise, stop=stop).entering, list[Tensor]()
    for task in tasks:
        with device_turn(loaded.device):
            sets = [loaded.bank.expert_set((task,), materialised=False)]
            whole = passes.second(noise, sets, offsets).float()
            resumed = passes.second(entering, sets, offsets, stop).float()
            found.append((1 - torch.cosine_similarity(whole, resumed).mean()).cpu())
    return torch.stack(found).clamp_min(0)
