"""What an engine asks of a GPU, counted by one that is not there (`tests.recorded_cuda`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from mass_serve.backbone.planned_passes import PlannedPasses
from mass_serve.engine import Engine, EngineOptions, Query, StoreSource
from mass_serve.engine.execution import Execution
from mass_serve.kernels import transfers
from mass_serve.kernels.segment_plan import SegmentPlan, Tiling
from mass_serve.kernels.transfers import UploadedStacks
from mass_serve.router import MODE_NAMES, ModeName
from tests.device_tensors import THERE
from tests.recorded_cuda import RecordedCuda, recorded_cuda

MAX_BATCH = 8
SIZES = (1, 3, 5, MAX_BATCH)


@pytest.fixture
def cuda() -> Iterator[RecordedCuda]:
    with recorded_cuda() as cuda:
        yield cuda


def ready(store: Path, mode: ModeName | None = None) -> Engine:
    return StoreSource(str(store), EngineOptions(device="cuda:0", mode=mode), max_batch=MAX_BATCH).load()


def pictures(count: int) -> list[Image.Image]:
    return [Image.linear_gradient("L").convert("RGB") for _ in range(count)]


def queries(engine: Engine, seed: int) -> list[Query]:
    """A full batch of noise."""
    crop, generator = engine.preprocessing.crop, torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (MAX_BATCH, 3, crop, crop), generator=generator, dtype=torch.uint8)
    return [Query(image) for image in pixels.unbind()]


def counted(cuda: RecordedCuda, run: Callable[[], object]) -> dict[str, int]:
    """What a run asked of the device."""
    before = cuda.counts.copy()
    run()
    return dict(cuda.counts - before)


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_an_engine_that_is_ready_compiles_and_captures_nothing(
    built_of_all: Path, cuda: RecordedCuda, mode: ModeName
) -> None:
    engine = ready(built_of_all, mode)
    variants, captures = set(cuda.variants), cuda.counts["captures"]
    for size in SIZES:
        engine.classify(pictures(size))
        engine.classify(pictures(size), tasks=["signs"])
    engine.classify(pictures(2), answer="each")
    engine.embed(pictures(3), "digits")
    assert cuda.variants == variants
    assert cuda.counts["captures"] == captures


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("execution", Execution)
def test_sets_run_in_every_form_and_those_that_are_low_rank_alone_need_no_tiles_of_their_own(
    built_of_all: Path, execution: Execution
) -> None:
    options = EngineOptions(device="cuda:0", execution=execution)
    engine = StoreSource(str(built_of_all), options, max_batch=MAX_BATCH).load()
    engine.classify(pictures(3), tasks=["signs"])
    passes = engine._passes
    assert isinstance(passes, PlannedPasses)
    assert passes._experts.may_own_weights is (execution is not Execution.LOW_RANK)


def test_texts_of_other_lengths_compile_nothing(text_store: Path, cuda: RecordedCuda) -> None:
    engine = ready(text_store)
    engine.classify(["one"])
    engine.classify(["one", "two"], answer="each")
    variants = set(cuda.variants)
    for count in (1, 2, 5):
        engine.classify([" ".join(["word"] * length) for length in range(1, count + 1)])
    assert cuda.variants == variants


def test_texts_send_each_plan_as_a_whole_and_wait_for_downloads_alone(
    text_store: Path, cuda: RecordedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, texts = ready(text_store, "balanced"), ["one and two and three", "four", "five"]
    engine.classify(["one", "one and two"])  # what plans are asked for is known from here on
    engine.classify(texts)  # products of class vectors have plans for so many rows
    alone = list[Tiling]()
    tile_map = SegmentPlan._tile_map

    def map_alone(plan: SegmentPlan, tiling: Tiling) -> Tensor:
        alone.append(tiling)
        return tile_map(plan, tiling)

    monkeypatch.setattr(SegmentPlan, "_tile_map", map_alone)
    asked = counted(cuda, lambda: engine.classify(texts))
    assert alone == []
    assert asked["downloads"] == asked["waits"] == 2  # evidence, and what the heads say


def test_a_batch_costs_few_copies_and_waits(built_of_all: Path, cuda: RecordedCuda) -> None:
    engine = ready(built_of_all, "exact")
    images = pictures(MAX_BATCH)
    engine.classify(images)
    asked = counted(cuda, lambda: engine.classify(images))
    assert asked["replays"] == 3  # the first pass in two parts, and the second
    assert asked["uploads"] == 1  # the pixels: plans and heads are those of the batch before
    assert asked["downloads"] == asked["waits"] == 2  # evidence, and what the heads say


def test_what_a_batch_of_another_size_adds_is_a_plan_for_each_pass(
    built_of_all: Path, cuda: RecordedCuda
) -> None:
    engine = ready(built_of_all, "exact")
    images = pictures(MAX_BATCH)
    for size in (MAX_BATCH, MAX_BATCH - 1):  # the first of each also makes plans for class vectors' products
        engine.classify(images[:size])
    asked = counted(cuda, lambda: engine.classify(images))
    assert asked["uploads"] == 1 + 3 + 1  # pixels, plans, and which head each embedding is for
    assert asked["waits"] == 2


def test_pixels_of_the_batch_that_follows_are_sent_while_one_runs(
    built_of_all: Path, cuda: RecordedCuda
) -> None:
    engine = ready(built_of_all, "exact")
    first, second, third = (queries(engine, seed) for seed in range(3))
    engine.classify_batch(first)
    sending = counted(cuda, lambda: engine.classify_batch(first, second))
    assert (sending["uploads"], sending["waits"]) == (1 + 1, 2)
    sent = counted(cuda, lambda: engine.classify_batch(second))
    assert (sent.get("uploads", 0), sent["waits"]) == (0, 2)
    assert sent["waits of streams"] == 1, "kernels wait for the copy"
    engine.classify_batch(first, second)
    other = counted(cuda, lambda: engine.classify_batch(third))
    assert other["uploads"] == 1, "what was sent is of other images"
    assert "waits of streams" not in other


@pytest.mark.usefixtures("cuda")
def test_pixels_that_were_sent_ahead_are_those_of_their_images() -> None:
    uploads, images = UploadedStacks(THERE), [torch.full((3, 2, 2), value) for value in range(4)]
    uploads.send_ahead([images[:2], images[2:]])
    for own in (images[2:], images[1:3], images[:2], images[2:]):
        found = uploads.stack(own)
        assert found.device == THERE
        assert torch.equal(found.cpu(), torch.stack(own))


def test_sending_ahead_waits_for_nothing_while_another_thread_captures(cuda: RecordedCuda) -> None:
    uploads, images = UploadedStacks(THERE), [torch.ones(3, 2, 2)]
    cuda.begin_capture()
    uploads.send_ahead([images])
    uploads.stack(images)
    cuda.end_capture()
    assert cuda.forbidden == []


@pytest.mark.usefixtures("cuda")
def test_queries_that_follow_and_do_not_fit_fail_in_their_own_batch(built_of_all: Path) -> None:
    engine = ready(built_of_all, "exact")
    wrong = [Query(torch.zeros(3, 1, 1, dtype=torch.uint8))]
    assert len(engine.classify_batch(queries(engine, 0), wrong).answers) == MAX_BATCH
    with pytest.raises(ValueError, match="pixels must be"):
        engine.classify_batch(wrong)


def test_a_batch_is_answered_where_the_one_that_follows_has_no_memory_yet(
    built_of_all: Path, cuda: RecordedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ready(built_of_all, "exact")
    first, second = queries(engine, 0), queries(engine, 1)
    mixed = [*second, Query(torch.zeros_like(second[0].pixels, dtype=torch.float32))]
    engine.classify_batch(first)
    send = transfers.uploaded_stack

    def full_of_bytes(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
        if tensors[0].dtype == torch.float32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return send(tensors, device)

    with monkeypatch.context() as full:
        full.setattr(transfers, "uploaded_stack", full_of_bytes)
        assert len(engine.classify_batch(first, mixed).answers) == MAX_BATCH
    sent = counted(cuda, lambda: engine.classify_batch(second))
    assert "waits of streams" not in sent, "a part of what follows was kept"


def test_pixels_that_follow_are_stacked_when_heads_are_launched(
    built_of_all: Path, cuda: RecordedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ready(built_of_all, "exact")
    first, second = queries(engine, 0), queries(engine, 1)
    engine.classify_batch(first)
    send, before = UploadedStacks.send_ahead, list[Counter[str]]()

    def counting(uploads: UploadedStacks, stacks: Iterable[Sequence[Tensor]]) -> None:
        before.append(cuda.counts.copy())
        send(uploads, stacks)

    monkeypatch.setattr(UploadedStacks, "send_ahead", counting)
    engine.classify_batch(first, second)
    (at_sending,) = before
    after = cuda.counts - at_sending
    assert after["launches"] == after["replays"] == 0
    assert after["downloads"] == 1


def test_a_batch_of_many_tasks_tells_the_device_of_rows_in_few_copies(
    built_of_all: Path, cuda: RecordedCuda
) -> None:
    engine = ready(built_of_all, "exact")
    images = pictures(MAX_BATCH)
    engine.classify(images, answer="each")
    asked = counted(cuda, lambda: engine.classify(images, answer="each"))
    # Pixels, the images that are in it for every task, those of second passes in the order of these, and
    # which head each embedding is for.
    assert asked["uploads"] <= 1 + 1 + 2
    assert asked["downloads"] == asked["waits"] == 1
