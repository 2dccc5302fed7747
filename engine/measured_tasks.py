"""Which tasks' energies are measured, where there are so many that it costs to measure all.

Up to MANY_TASKS all of them are, for every input. Beyond, an input's energies are those of its candidates;
and behind the first third of the first pass the MANY_TASKS that early evidence has ahead remain. What a task
is not measured for is 0, whatever else is in the batch: an answer depends on its own input alone.

Where a store is calibrated, or is about to be, all are measured: its discriminant judges the evidence of all
tasks together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.backbone import PassResult

# The tasks that late evidence is measured for. `python -m benchmarks.tasks` measures what that costs in right
# choices, and what it saves.
MANY_TASKS = 64
# Directions are copied where at most this share of the tasks is measured. Copying is no gain on a GPU.
COPIED_SHARE = 0.5


def copied_tasks(candidates: Tensor) -> Tensor | None:
    """The tasks [n] int64 that a batch with candidates [B, T] needs; None where they are most of them."""
    tasks = candidates.any(0).nonzero().flatten()
    return tasks if len(tasks) <= COPIED_SHARE * candidates.shape[1] else None


def of_candidates(measured: PassResult, candidates: Tensor, tasks: Tensor | None) -> PassResult:
    """The result with energies of T tasks, 0 for those that are no candidates of a sample [B, T].

    `measured` has those of n `tasks`, [B, K, n] or with profiles [B, K, 2 n]; None: of all.
    """
    (samples, linears, _), of_all = measured.energies.shape, candidates.shape[1]
    energies = measured.energies.view(samples, linears, -1, of_all if tasks is None else len(tasks))
    if tasks is not None:
        room = energies.new_zeros(*energies.shape[:3], of_all)
        room[..., tasks.to(room.device)] = energies
        energies = room
    energies = torch.where(candidates[:, None, None].to(energies.device), energies, 0.0).flatten(2)
    return PassResult({**measured.outputs, "energies": energies})


def likeliest(scores: Tensor, candidates: Tensor) -> Tensor:
    """The MANY_TASKS of the candidates [B, T] with the largest scores [B, T], as a mask."""
    ranked = scores.sort(dim=1, descending=True, stable=True).indices[:, :MANY_TASKS]
    return candidates & torch.zeros_like(candidates).scatter(1, ranked, True)
