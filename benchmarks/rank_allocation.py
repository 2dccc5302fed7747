"""Ways to spend the bytes of a store's blocks, at equal bytes.

    python -m benchmarks.rank_allocation SUITE... [--json FILE]

A SUITE is a folder with a `store` and, in `evaluation`, data as `mass-serve eval` takes them. The blocks are
cut to half of their bytes: by the same ratio everywhere; by what each triplet loses, `s^2`, for every byte,
of all tasks together or of each task by itself; and by what it loses of the outputs of drawn inputs,
`s^2 v^T M v` with M the second moments of what enters the matrix in the pretrained encoder (weights as in
FWSVD, arXiv:2207.00112). The energies of a task are over their sum.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.entered_rows import EnteredRows
from mass_serve.backbone import ExpertBank, run
from mass_serve.backbone.architecture import weight_of
from mass_serve.engine import Engine
from mass_serve.engine.drawn_inputs import drawn_inputs
from mass_serve.engine.execution import Execution
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_store
from mass_serve.evaluation import EvaluationData, Options, files_of
from mass_serve.evaluation.baselines import TSV_C
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.merging.formats.ranks import level_within, rank_above
from mass_serve.model_store.store import Store

SHARE = 0.5  # of the stored bytes
SET_CACHE_BYTES = 256 << 20
Energies = dict[str, Tensor]  # of a task, by matrix


@torch.inference_mode()
def second_moments(loaded: LoadedStore) -> dict[str, Tensor]:
    """What enters each matrix [d_in, d_in]: none of matrices that are no linear ones."""
    weights = EnteredRows(loaded.pretrained)
    run(loaded.architecture, weights, drawn_inputs(loaded))
    moments = {}
    for linear in weights.linears():
        rows = weights.entered(linear).double()
        moments[weight_of(linear)] = rows.T @ rows
    return moments


def task_energies(loaded: LoadedStore, moments: Mapping[str, Tensor]) -> list[Energies]:
    """Of every task and matrix what each triplet loses, over the sum of all; by M where there is one."""
    found = []
    for task in range(loaded.bank.num_tasks):
        energies = {}
        for name in loaded.bank.ranks:
            (vectors,) = loaded.bank.singular_vectors(name, [task])
            energies[name], vh = vectors.s.double().square(), vectors.vh.double()
            if (moment := moments.get(name)) is not None:
                # At the same mean over directions, so that matrices without moments are comparable.
                moment = moment * (len(moment) / moment.trace())
                energies[name] = energies[name] * ((vh @ moment) * vh).sum(1)
        whole = torch.cat(list(energies.values())).sum()
        found.append({name: own / whole for name, own in energies.items()})
    return found


def within(energies: list[Energies], costs: Mapping[str, int], budget: float) -> list[dict[str, int]]:
    """The ranks of tasks that share a budget of bytes: the triplets that are worth most for a byte."""
    flat = [(own, costs[name]) for task in energies for name, own in task.items()]
    level = level_within(
        torch.cat([own for own, _ in flat]),
        torch.cat([torch.full_like(own, cost) for own, cost in flat]),
        budget,
    )
    # Products with M are no longer sorted; what is kept are leading triplets, as many.
    return [{name: rank_above(own, costs[name], level) for name, own in task.items()} for task in energies]


def allocations(loaded: LoadedStore, costs: Mapping[str, int]) -> dict[str, list[dict[str, int]]]:
    """The ranks of every task by each way to choose them, all of the same bytes."""
    uniform = [
        {name: max(1, int(rank * SHARE)) if rank else 0 for name, rank in own.items()}
        for own in loaded.bank.task_ranks
    ]
    sizes = [sum(costs[name] * rank for name, rank in own.items()) for own in uniform]
    found = {"uniform": uniform}
    for kind, moments in (("energy", {}), ("activations", second_moments(loaded))):
        energies = task_energies(loaded, moments)
        found[f"{kind}, of all tasks"] = within(energies, costs, sum(sizes))
        found[f"{kind}, of each task"] = [
            within([own], costs, size)[0] for own, size in zip(energies, sizes, strict=True)
        ]
    return found


def cut(loaded: LoadedStore, ranks: list[dict[str, int]]) -> Engine:
    """An engine of the store with fewer triplets."""
    bank = ExpertBank(loaded.architecture, loaded.pretrained, ranks)
    for task, own in enumerate(ranks):
        vectors = {
            name: loaded.bank.singular_vectors(name, [task])[0].leading(own[name])
            for name in loaded.bank.ranks
        }
        dense = [name for name in loaded.pretrained if name not in loaded.bank.ranks]
        bank.set_task(task, vectors, {name: loaded.bank.dense_delta(name, task) for name in dense})
    return Engine(replace(loaded, bank=bank, calibration=None), Execution.LOW_RANK, SET_CACHE_BYTES)


def measured(suite: Path) -> dict[str, dict[str, float]]:
    """Bytes over those of the encoder, and average accuracies, by the way to choose ranks."""
    place = str(suite / "store")
    store, loaded = Store.open(place), load_store(place, torch.device("cpu"), torch.float32, "exact")
    costs = store.layout.triplet_bytes
    labels = of_whole_inputs({task.name: task for task in store.manifest.tasks})
    encoder = sum(tensor.nbytes for tensor in store.load_pretrained().values())
    found = {}
    for name, ranks in allocations(loaded, costs).items():
        engine = cut(loaded, ranks)
        data = EvaluationData(suite / "evaluation", labels, files_of(engine))
        average = evaluate(engine, data, options=Options(baselines=[TSV_C]))["average"]
        known = average["baselines"][TSV_C]
        assert known is not None
        found[name] = {
            "blocks": sum(costs[key] * rank for own in ranks for key, rank in own.items()) / encoder,
            "task_known": known,
            "exact": average["accuracy"],
        }
        print(f"{suite.name} {name}: {found[name]}", flush=True)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.rank_allocation")
    parser.add_argument("suites", nargs="+", type=Path, metavar="SUITE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    found = {suite.name: measured(suite) for suite in given.suites}
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
