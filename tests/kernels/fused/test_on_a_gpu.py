"""What only a GPU can show: real sizes, graphs, streams, the memory checker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

from benchmarks.kernel_times import Case, case_output
from mass_serve.kernels import BaseOnly, Delta, MaterialisedWeight, segmented_linear
from mass_serve.kernels.low_rank.fused import planned_linear
from mass_serve.kernels.low_rank.places import LinearPlace, linear_fields
from mass_serve.kernels.records import LinearField, record
from mass_serve.kernels.segment_plan import SegmentPlan
from tests.interpreter import DEVICE, INTERPRETED, ROOT
from tests.kernels import segmented

pytestmark = pytest.mark.skipif(INTERPRETED, reason="needs a GPU: real sizes, graphs, streams")


def _on_device(rows: tuple[int, ...], tasks: int = 3) -> segmented.Case:
    return segmented.Case.random(rows, 768, 768, 96, torch.bfloat16, tasks).to(DEVICE)


@pytest.mark.parametrize("shape", [(2304, 768), (768, 768), (3072, 768), (768, 3072), (4096, 1024)])
@pytest.mark.parametrize(("rank", "sets"), [(38, 20), (114, 20), (96, 1), (288, 8)])
def test_real_sizes(shape: tuple[int, int], rank: int, sets: int) -> None:
    case = Case.random(32, 197, shape, rank, sets, DEVICE)
    found = case_output(case.variants()["fused"])
    deltas, rows = case.deltas, tuple(197 * offset for offset in case.offsets)
    wanted = segmented.expected(case.x, case.weight, deltas, rows)
    assert (found.double() - wanted).norm() < 5e-3 * wanted.norm()


def test_a_graph_replays_with_the_segments_that_an_update_put_in() -> None:
    """The low-rank, the materialised and the base-only form change places between replays."""
    case = _on_device((0, 40, 100, 197), tasks=1)
    merged = segmented.dense_weight(case.weight, case.deltas[0]).bfloat16()
    deltas: list[Delta] = [
        case.deltas[0],
        MaterialisedWeight(merged, case.deltas[0].bias),
        BaseOnly(case.deltas[1].bias),
    ]
    length = len(LinearField)
    records = [record(length, {0: linear_fields(delta, case.weight)}) for delta in deltas]
    plan = SegmentPlan(197, 3, length, DEVICE)
    place = LinearPlace(0, 768, 768, 96, 96, shared_weight=True)
    plan.update((0, 40, 100, 197), records, [False, True, False])
    planned_linear(case.x, plan, place, tokens=1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = planned_linear(case.x, plan, place, tokens=1)
    for order, cut in (((0, 1, 2), (0, 40, 100, 197)), ((2, 0), (0, 7, 150)), ((1,), (0, 197))):
        chosen = [deltas[i] for i in order]
        plan.update(cut, [records[i] for i in order], [i == 1 for i in order])
        y.fill_(float("nan"))
        graph.replay()
        wanted = segmented.expected(case.x[: cut[-1]], case.weight, chosen, cut)
        assert (y[: cut[-1]].double() - wanted).norm() < 1e-2 * wanted.norm()
        assert torch.count_nonzero(y[cut[-1] :]) == 0


def test_two_streams_do_not_disturb_each_other() -> None:
    cases = [_on_device((0, 500, 1500, 3000)), _on_device((0, 10, 2999, 3000), tasks=1)]
    wanted = [segmented_linear(c.x, c.weight, c.deltas, c.rows) for c in cases]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in cases]  # type: ignore[no-untyped-call]
    found: list[list[torch.Tensor]] = [[], []]
    for _ in range(20):
        for i, (case, stream) in enumerate(zip(cases, streams, strict=True)):
            with torch.cuda.stream(stream):
                found[i].append(segmented_linear(case.x, case.weight, case.deltas, case.rows))
    torch.cuda.synchronize()
    assert all(torch.equal(y, wanted[i]) for i in range(2) for y in found[i])


def test_the_memory_checker_finds_nothing() -> None:
    checker = shutil.which("compute-sanitizer")
    if checker is None:
        pytest.skip("no compute-sanitizer")
    tests = ["tests/kernels/fused/test_low_rank.py", "-k", "share_a_launch or 129-257"]
    command = [checker, "--error-exitcode", "9", sys.executable, "-m", "pytest", "-q", *tests]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
