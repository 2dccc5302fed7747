"""What adaptive execution assumes: how long a multiply-accumulate takes, of renting and of buying.

    python -m benchmarks.cost_model STORE [--json FILE] [--rounds N]

On a store of real sizes, with batches of 32 of one expert set: what low-rank execution takes longer than the
materialised form, and what merging the set's weights takes, both over the multiply-accumulates that
`engine.execution` counts. Their ratio is its constant for the set's number of tasks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import medians
from mass_serve.engine import Engine, Query
from mass_serve.engine.execution import AdaptiveExecution
from mass_serve.engine.second_passes import SecondPass
from mass_serve.engine.set_cache import SetKey

BATCH = 32
SETS = ((0,), (0, 1))


def measure(engine: Engine, rounds: int) -> dict[str, float]:
    """Seconds, and the ratios of seconds a multiply-accumulate."""
    crop = engine.preprocessing.crop
    pixels = torch.randint(256, (3, crop, crop), dtype=torch.uint8)
    patches = engine._inputs([Query(pixels)] * BATCH)
    prices = AdaptiveExecution(engine.bank, engine.set_cache)

    @torch.inference_mode()
    def second_pass(expert_set: tuple[int, ...], materialised: bool) -> Tensor:
        runner = replace(
            engine._second_passes, choose_form=lambda chosen, _tokens: SetKey(chosen, materialised)
        )
        return runner.run([SecondPass(sample, expert_set) for sample in range(BATCH)], patches)

    @torch.inference_mode()
    def merging(expert_set: tuple[int, ...]) -> object:
        return engine.bank.expert_sets([expert_set], materialised=True)

    figures: dict[str, float] = {}
    for expert_set in SETS:
        count = len(expert_set)
        variants: dict[str, Callable[[], object]] = {
            f"low_rank_{count}": partial(second_pass, expert_set, materialised=False),
            f"materialised_{count}": partial(second_pass, expert_set, materialised=True),
            f"merging_{count}": partial(merging, expert_set),
        }
        times = medians(variants, rounds)
        rent = (times[f"low_rank_{count}"] - times[f"materialised_{count}"]) / (
            BATCH * engine.architecture.num_tokens * prices.rent(expert_set)
        )
        buy = times[f"merging_{count}"] / prices.merging(expert_set)
        figures |= times | {f"buying_over_renting_{count}": buy / rent}
    return figures


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    figures = measure(Engine.load(str(options.store), dtype="float32"), options.rounds)
    for name, value in figures.items():
        print(f"{name:28s} {value:10.4f}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
