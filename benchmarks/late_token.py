"""How well late energies tell whole fine-tunings, by the token that they are of, and which one `build` takes.

    python -m benchmarks.late_token SUITES --json benchmarks/results/late_token.json

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them. The choice is made
without data (`engine.measuring`); how often each token is right is measured on `evaluation` parts, by what
the tasks explain behind the first third of a pass and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.by_suite import asked_suites
from benchmarks.whole_fine_tunings import WholeFineTunings, averaged
from mass_serve.backbone import Probe
from mass_serve.backbone.architecture import Token
from mass_serve.engine.measuring import late_variations
from mass_serve.router import EnergyEvidence, LinearSubspaces, early_stop
from mass_serve.router.weights import WEIGHTS


def main() -> None:
    """Prints a line for each suite."""
    asked = asked_suites(__doc__)
    for folder in asked.suites:
        figures = _figures(WholeFineTunings.open(folder))
        print(f"{folder.name}: {figures}", flush=True)
        asked.record(folder.name, figures)


def _figures(suite: WholeFineTunings) -> dict[str, Any]:
    architecture = suite.loaded.architecture
    subspaces = suite.loaded.subspaces(architecture.late_linears(early_stop(architecture.depth)))
    variations = late_variations(suite.loaded, subspaces)
    right = _right(suite, subspaces)
    return {
        "tasks": suite.tasks,
        "variation": {token: round(value, 4) for token, value in variations.items()},
        "chosen": max(variations, key=variations.__getitem__),
        "right": {token: round(value, 4) for token, value in right.items()},
    }


@torch.inference_mode()
def _right(suite: WholeFineTunings, subspaces: Mapping[str, LinearSubspaces]) -> dict[Token, float]:
    """How often the task that explains most is the input's own, averaged over tasks, by the token."""
    tasks = len(suite.tasks)
    evidence = EnergyEvidence(list(subspaces.values()), torch.zeros(tasks, dtype=torch.bool))
    bases = {linear: one.directions for linear, one in subspaces.items()}
    found: dict[Token, list[Tensor]] = {token: [] for token in suite.loaded.architecture.tokens}
    truth = []
    for own in suite.evaluation():
        truth += [own.task] * len(own.targets)
        every = torch.ones(len(own.targets), tasks, dtype=torch.bool)
        for token, chosen in found.items():
            energies = suite.passes.first(own.inputs, probe=Probe(bases, token=token)).energies.cpu()
            chosen.append(evidence.scores(energies, every, WEIGHTS).argmax(1))
    numbers = torch.tensor(truth)
    return {token: averaged(torch.cat(chosen) == numbers, numbers) for token, chosen in found.items()}


if __name__ == "__main__":
    main()
