"""How well late energies tell whole fine-tunings, by the token that they are of, and which one `build` takes.

    python -m benchmarks.late_token SUITES --json benchmarks/results/late_token.json

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them. The choice is made
without data (`engine.measuring`); how often each token is right is measured on `evaluation` parts, by what
the tasks explain behind the first third of a pass and nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mass_serve.backbone import Probe, passes_for
from mass_serve.backbone.architecture import Token
from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import LoadedStore, load_opened
from mass_serve.engine.measuring import late_variations
from mass_serve.engine.options import GIB
from mass_serve.evaluation.data import input_batches, of_whole_inputs
from mass_serve.evaluation.inputs import TaskLabels, drawn, files_of
from mass_serve.model_store.store import Store
from mass_serve.router import EnergyEvidence, LinearSubspaces, early_stop
from mass_serve.router.weights import WEIGHTS

MOST = 60  # inputs of a task


def main() -> None:
    """Prints a line for each suite."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", type=Path, help="folder of the suites")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these suites of the folder")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    asked = parser.parse_args()
    names = asked.only or sorted(
        path.parent.parent.name for path in asked.suites.glob("*/store/manifest.json")
    )
    figures: dict[str, Any] = {"inputs_of_a_task": MOST, "suites": {}}
    for name in names:
        figures["suites"][name] = own = _figures(asked.suites / name)
        print(f"{name}: {own}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


def _figures(folder: Path) -> dict[str, Any]:
    store = Store.open(folder / "store")
    loaded = _whole_fine_tunings(store)
    labels = of_whole_inputs({task.name: task for task in store.manifest.tasks})
    subspaces = loaded.subspaces(loaded.architecture.late_linears(early_stop(loaded.architecture.depth)))
    variations = late_variations(loaded, subspaces)
    right = _right(loaded, folder / "evaluation", labels, subspaces)
    return {
        "tasks": [head.entry.name for head in loaded.routed_heads],
        "variation": {token: round(value, 4) for token, value in variations.items()},
        "chosen": max(variations, key=variations.__getitem__),
        "right": {token: round(value, 4) for token, value in right.items()},
    }


def _whole_fine_tunings(store: Store) -> LoadedStore:
    """Loads the tasks of a store that are no adapters."""
    device, dtype = torch.device("cpu"), torch.float32
    every = load_opened(store, device, dtype, "exact", calibrated=False)
    adapters = [
        head.entry.name for head, is_one in zip(every.routed_heads, every.adapters, strict=True) if is_one
    ]
    return load_opened(store, device, dtype, "exact", adapters, every, calibrated=False)


@torch.inference_mode()
def _right(
    loaded: LoadedStore,
    root: Path,
    labels: Mapping[str, TaskLabels],
    subspaces: Mapping[str, LinearSubspaces],
) -> dict[Token, float]:
    """How often the task that explains most is the input's own, averaged over tasks, by the token."""
    engine = Engine(loaded, Execution.LOW_RANK, GIB)
    files, names = files_of(engine), list(engine.tasks)
    chosen = drawn((one for one in files.labelled(root, labels) if one.task in names), MOST)
    truth = torch.tensor([names.index(one.task) for one in chosen])
    passes, like = passes_for(loaded.bank, loaded.first_pass, 1), next(iter(loaded.pretrained.values()))
    evidence = EnergyEvidence(list(subspaces.values()), torch.zeros(len(names), dtype=torch.bool))
    bases = {linear: one.projectors for linear, one in subspaces.items()}
    found: dict[Token, list[Tensor]] = {token: [] for token in loaded.architecture.tokens}
    for tensors in input_batches(files, root, [one.item for one in chosen]):
        inputs = files.batch(loaded.architecture, tensors, like)
        for token, tasks in found.items():
            energies = passes.first(inputs, probe=Probe(bases, token=token)).energies.cpu()
            every = torch.ones(len(energies), len(names), dtype=torch.bool)
            tasks.append(evidence.scores(energies, every, WEIGHTS).argmax(1))
    return {token: _averaged(torch.cat(tasks) == truth, truth) for token, tasks in found.items()}


def _averaged(right: Tensor, truth: Tensor) -> float:
    shares = [right[truth == task].float().mean() for task in range(int(truth.max()) + 1)]
    return float(torch.stack(shares).mean())


if __name__ == "__main__":
    main()
