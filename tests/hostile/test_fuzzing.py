"""The targets of `make fuzz` can be run: well-formed input is accepted, and what is spoilt is refused."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from tests.hostile.fuzzing import TARGETS, Target
from tests.hostile.mutations import spoilt

SPOILT = 200


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
