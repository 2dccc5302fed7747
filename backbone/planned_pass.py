"""One pass of the encoder, launched from plans; on CUDA, replayed from graphs for a few batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mass_serve.backbone.fused import FusedWeights, RecordLayout
from mass_serve.kernels.segment_plan import SegmentPlan

# A batch is computed at the next of these sizes, above the last at its own; its tail costs next to nothing.
BATCH_SIZES = (1, 4, 8, 16, 32, 64, 128, 256)
WARM_UP_RUNS = 2

Run = Callable[[FusedWeights, Tensor], Tensor]


@dataclass
class Prepared:
    """What one batch size keeps: tensors whose addresses a graph may rely on, and the graph."""

    plan: SegmentPlan
    patches: Tensor  # [size, L - 1, 3 p p]
    graph: torch.cuda.CUDAGraph | None = None
    output: Tensor | None = None  # the graph's


class PlannedPass:
    """`run(weights, patches)` for batches of any size and any segments. Not thread-safe."""

    def __init__(self, run: Run, layout: RecordLayout, layer_norm_eps: float) -> None:
        self._run = run
        self._layout = layout
        self._layer_norm_eps = layer_norm_eps
        self._prepared: dict[int, Prepared] = {}
        self._pool: Any = None

    @torch.inference_mode()
    def __call__(
        self,
        patches: Tensor,
        segment_offsets: Sequence[int],
        records: Sequence[Tensor],
        own_weights: Sequence[bool],
    ) -> Tensor:
        """The output [B, ...] for patches [B, L - 1, 3 p p]; segments as in `SegmentPlan.update`."""
        samples = len(patches)
        size = next((size for size in BATCH_SIZES if size >= samples), samples)
        prepared = self._prepared.get(size) or self._prepare(size, patches)
        prepared.plan.update(segment_offsets, records, own_weights)
        prepared.patches[:samples].copy_(patches)
        if patches.device.type != "cuda" or size > BATCH_SIZES[-1]:
            return self._launch(prepared)[:samples]
        if prepared.graph is None or prepared.output is None:
            return self._capture(prepared)[:samples].clone()
        prepared.graph.replay()
        return prepared.output[:samples].clone()

    def _prepare(self, size: int, patches: Tensor) -> Prepared:
        plan = SegmentPlan(size, size, self._layout.length, patches.device)
        prepared = Prepared(plan, patches.new_zeros(size, *patches.shape[1:]))
        if size <= BATCH_SIZES[-1]:
            self._prepared[size] = prepared
        return prepared

    def _launch(self, prepared: Prepared) -> Tensor:
        return self._run(FusedWeights(self._layout, prepared.plan, self._layer_norm_eps), prepared.patches)

    def _capture(self, prepared: Prepared) -> Tensor:
        """Records the pass as a graph and replays it. Graphs share their memory: one runs at a time."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):  # kernels are compiled and tile maps made before the capture
                self._launch(prepared)
        torch.cuda.current_stream().wait_stream(stream)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        prepared.graph = torch.cuda.CUDAGraph()
        # Another thread may be loading the next store: its allocations are none of this capture's business.
        with torch.cuda.graph(prepared.graph, pool=self._pool, capture_error_mode="thread_local"):
            prepared.output = self._launch(prepared)
        prepared.graph.replay()
        return prepared.output
