"""The engine benchmark from models to ratios, on a tiny encoder: what it computes, not how fast."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks import engine_gpu, gpu_models, gpu_peers
from benchmarks.engine_gpu import Model, Run
from mass_serve.kernels.backend import backend
from tests import tiny
from tests.interpreter import DEVICE

TINY = tiny.architecture(16, 8, 64, 2, 4, 128, projection_dim=32)


@pytest.fixture(autouse=True)
def fused_on_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with backend("fused"), torch.inference_mode():
        yield
    torch.set_num_threads(before)


def test_every_figure_comes_out_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(DEVICE, torch.float32, budget=0.0, warm_up=0)
    monkeypatch.setattr(engine_gpu, "TASKS", (4,))
    monkeypatch.setattr(engine_gpu, "HEADLINE_BATCH", 0)  # nothing is compiled
    dense = engine_gpu.dense_times("tiny", TINY, (2,), run)
    model = Model.random("tiny", TINY, 4, run)
    engine_gpu.check(model, run)
    engine_gpu.measure_model(model, dense, sets=(1, 2), sizes=(1, 2), run=run)
    names = ["base only", "materialised in 2 sets", "both passes"]
    names += [f"low rank of {size} in {sets} sets" for size in (1, 2) for sets in (1, 2)]
    assert set(run.ratios) == {f"tiny T 4 batch 2 {name}" for name in names}
    assert all(ratio > 0 for ratio in run.ratios.values())


def test_a_disagreement_with_the_reference_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(DEVICE, torch.float32)
    model = Model.random("tiny", TINY, 4, run)
    monkeypatch.setattr(gpu_models, "relative_error", lambda *_: float("nan"))
    with pytest.raises(AssertionError, match="differ"):
        engine_gpu.check(model, run)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers by an old name
def test_the_peers_serve_the_same_batch() -> None:
    pytest.importorskip("peft")
    run = Run(DEVICE, torch.float32, budget=0.0, warm_up=0)
    model = Model.random("tiny", TINY, 4, run)
    dense = gpu_peers.dense_model(TINY, run.dtype, run.device)
    speedups = engine_gpu.measure_peers(model, dense, batch=4, sets=2, run=run)
    assert set(speedups) == {"loop_speedup", "peft_speedup", "product_for_each_segment_speedup"}
    assert all(speedup > 0 for speedup in speedups.values())


def test_a_product_for_each_segment_gives_a_pass_of_the_same_batch() -> None:
    run = Run(DEVICE, torch.float32, budget=0.0, warm_up=0)
    found = engine_gpu.product_for_each_segment(
        Model.random("tiny", TINY, 4, run), batch=4, sets=2, run=run
    )()
    assert isinstance(found, torch.Tensor)
    assert found.shape == (4, 32)
    assert found.isfinite().all()
