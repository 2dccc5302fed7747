"""The time of a batch's stages, without a wait for each of them."""

from __future__ import annotations

import time

import torch

from mass_serve.engine.stages import ENGINE_STAGES, StageClock
from tests.recorded_cuda import recorded_cuda


def _run(clock: StageClock) -> None:
    for name in ("first_pass", "heads", "first_pass"):
        with clock.stage(name):
            time.sleep(0.002)


def test_a_stage_that_is_entered_again_adds_up() -> None:
    clock = StageClock(torch.device("cpu"))
    _run(clock)
    seconds = clock.seconds()
    assert tuple(seconds) == ENGINE_STAGES
    assert seconds["first_pass"] >= 0.004
    assert seconds["heads"] >= 0.002
    assert seconds["route"] == seconds["second_pass"] == 0


def test_on_a_gpu_events_mark_the_stages_and_nothing_waits_for_them() -> None:
    with recorded_cuda() as cuda:
        clock = StageClock(torch.device("cuda:0"))
        _run(clock)
        seconds = clock.seconds()
        assert cuda.counts["waits"] == 0
    assert seconds["first_pass"] >= 0.004
    assert seconds["route"] == 0
