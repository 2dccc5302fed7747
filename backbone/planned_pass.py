"""One pass of the encoder, launched from plans; on CUDA, replayed from graphs for a few batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture
from mass_serve.backbone.one_pass import PassResult, Probe, Stop, run
from mass_serve.backbone.weights.planned import PlannedWeights, RecordLayout
from mass_serve.kernels.segment_plan import SegmentPlan

# A batch is computed at the next of these sizes, above the last at its own; its tail costs next to nothing.
BATCH_SIZES = (1, 4, 8, 16, 32, 64, 128, 256)
WARM_UP_RUNS = 2


@dataclass
class Prepared:
    """Holds what one batch size keeps: tensors whose addresses a graph may rely on, and the graph."""

    plan: SegmentPlan
    x: Tensor  # [size, ...]: patches or tokens
    graph: torch.cuda.CUDAGraph | None = None
    output: PassResult | None = None  # the graph's


class PlannedPass:
    """One kind of pass for batches of any size and any segments: `backbone.one_pass.run` with what is fixed.

    It is not thread-safe. Its results are the caller's to keep.
    """

    def __init__(
        self,
        architecture: Architecture,
        layout: RecordLayout,
        start: int | None,
        stop: Stop,
        probe: Probe,
        graph_pool: Any,
    ) -> None:
        """`graph_pool` is the memory of the graphs as `torch.cuda.graph_pool_handle` gives it; else None.

        Passes that share it run one at a time.
        """
        self._architecture = architecture
        self._layout = layout
        self._start = start
        self._stop: Stop = stop
        self._probe = probe
        self._prepared: dict[int, Prepared] = {}
        self._graph_pool = graph_pool

    @torch.inference_mode()
    def __call__(
        self,
        x: Tensor,
        segment_offsets: Sequence[int],
        records: Sequence[Tensor],
        own_weights: Sequence[bool],
    ) -> PassResult:
        """Returns what `run` gives for x [B, ...], patches or tokens; segments as in `SegmentPlan.update`."""
        samples = len(x)
        size = next((size for size in BATCH_SIZES if size >= samples), samples)
        prepared = self._prepared.get(size) or self._prepare(size, x)
        prepared.plan.update(segment_offsets, records, own_weights)
        prepared.x[:samples].copy_(x)
        if x.device.type != "cuda" or size > BATCH_SIZES[-1]:
            return self._launch(prepared).each(lambda tensor: tensor[:samples])
        output = prepared.output
        if prepared.graph is None or output is None:
            output = self._capture(prepared)
        else:
            prepared.graph.replay()
        # The next replay writes into the same memory.
        return output.each(lambda tensor: tensor[:samples].clone())

    def _prepare(self, size: int, x: Tensor) -> Prepared:
        plan = SegmentPlan(size, size, self._layout.length, x.device)
        prepared = Prepared(plan, x.new_zeros(size, *x.shape[1:]))
        if size <= BATCH_SIZES[-1]:
            self._prepared[size] = prepared
        return prepared

    def _launch(self, prepared: Prepared) -> PassResult:
        weights = PlannedWeights(self._layout, prepared.plan)
        return run(self._architecture, weights, prepared.x, self._start, self._stop, self._probe)

    def _capture(self, prepared: Prepared) -> PassResult:
        """Records the pass as a graph and replays it.

        Graphs share their memory: one runs at a time, and what it leaves is copied before the next runs.
        """
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):  # kernels are compiled and tile maps made before the capture
                self._launch(prepared)
        torch.cuda.current_stream().wait_stream(stream)
        prepared.graph = torch.cuda.CUDAGraph()
        # Another thread may be loading the next store: its allocations are none of this capture's business.
        with torch.cuda.graph(prepared.graph, pool=self._graph_pool, capture_error_mode="thread_local"):
            prepared.output = self._launch(prepared)
        prepared.graph.replay()
        return prepared.output
