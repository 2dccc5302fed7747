"""The targets of `make fuzz` can be run: well-formed input is accepted, and what is spoilt is refused."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.hostile.fuzzing import TARGETS, Target
from tests.hostile.mutations import spoilt
from tests.server_processes import ROOT

SPOILT = 200
MODULES = sorted({name for target in TARGETS.values() for name in target.modules})


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_takes_its_seeds_and_refuses_the_rest(target: Target) -> None:
    parse, refusals = target.make()
    seeds = target.seeds()
    for seed in seeds:
        parse(seed)
    chance = random.Random(0)
    refused = 0
    for _ in range(SPOILT):
        with suppress(*refusals):
            parse(spoilt(chance, chance.choice(seeds)))
            continue
        refused += 1
    assert refused > SPOILT // 20


def test_nothing_is_imported_before_it_can_be_instrumented() -> None:
    program = "import sys, tests.hostile.fuzzing; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    early = [
        name for name in done.stdout.split() for module in MODULES if f"{name}.".startswith(f"{module}.")
    ]
    assert early == []
