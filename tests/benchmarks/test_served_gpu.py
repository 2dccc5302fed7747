"""The benchmark of the engine on a GPU, from a store to figures on a CPU: what it computes, not how fast."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import engine_gpu, served_gpu
from mass_serve.backbone import Architecture, Block, PatchEmbedding, Pooling
from mass_serve.engine import StoreSource
from mass_serve.model_store.errors import StoreError
from mass_serve.router import MODE_NAMES
from mass_serve.server.startup import demo_store

STORE = Path(demo_store())


def test_every_mode_is_timed_and_batches_with_a_named_task() -> None:
    times = served_gpu.batch_seconds(STORE, "cpu", batches=(2,), budget=0.0, warm_up=0)
    assert set(times) == {f"classify_batch {mode} batch 2" for mode in (*MODE_NAMES, "named")}
    assert all(seconds > 0 for seconds in times.values())


def test_batches_are_answered_while_the_store_is_loaded_once_more() -> None:
    figures = served_gpu.reload_under_load(STORE, "cpu", batch=2, least_seconds=0.0)
    assert figures["reload_seconds"] > 0
    assert figures["reload_batch_seconds_longest"] >= figures["reload_batch_seconds_during"] > 0


def test_a_load_that_fails_beside_the_batches_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = served_gpu.source(STORE, "cpu", "exact", 2).load()

    def load(_: object, previous: object = None) -> object:
        if previous is not None:
            raise StoreError("the store is gone")
        return engine

    monkeypatch.setattr(StoreSource, "load", load)
    with pytest.raises(StoreError, match="gone"):
        served_gpu.reload_under_load(STORE, "cpu", batch=2, least_seconds=0.0)


def test_images_are_decoded_and_answered() -> None:
    figures = served_gpu.images_per_second(STORE, "cpu", batch=2, batches=2, workers=2)
    assert figures["images_per_second_exact"] > 0
    assert figures["images_per_second_exact_sent_ahead"] > 0


def test_what_is_served_is_built_measured_and_held_against_a_dense_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = Architecture(PatchEmbedding(32, 16), Block(32, 2, 64, "quick_gelu", 1e-5), 3, Pooling(16))
    sizes = {"SERVED_TASKS": 2, "HEADLINE_BATCH": 2, "DECODED_BATCHES": 1, "RELOAD_SECONDS": 0.0}
    for name, value in {"VITS": {engine_gpu.HEADLINE_MODEL: small}, **sizes}.items():
        monkeypatch.setattr(engine_gpu, name, value)
    run = engine_gpu.Run(torch.device("cpu"), torch.float32, budget=0.0, warm_up=0)
    figures = engine_gpu.measure_served(0.5, run)
    for name in (*MODE_NAMES, "named"):
        of_batch = f"classify_batch {name} batch 2"
        assert figures[f"{of_batch} over dense"] == run.raw[of_batch] / 0.5
        assert run.raw[f"classify_batch {name} batch 1"] > 0
    assert figures["reload_seconds"] > 0
    assert figures["images_per_second_exact"] > 0
