"""One pass of the encoder, launched from plans; on CUDA, replayed from graphs for a few batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture
from mass_serve.backbone.graphs import Graphs
from mass_serve.backbone.one_pass import PassResult, Probe, Stop, run
from mass_serve.backbone.weights.planned import PlannedWeights, RecordLayout
from mass_serve.kernels.segment_plan import SegmentPlan, Tiling

# A batch is computed at the next of these sizes, above the last at its own; its tail costs next to nothing.
BATCH_SIZES = (1, 4, 8, 16, 32, 64, 128, 256)


@dataclass
class Prepared:
    """Holds what one batch size keeps: tensors whose addresses a graph may rely on, the graph, its output."""

    plan: SegmentPlan
    x: Tensor  # [size, ...]: patches or tokens
    captured: tuple[torch.cuda.CUDAGraph, PassResult] | None = None


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
        mlp_share: float,
        graphs: Graphs | None,
    ) -> None:
        """`graphs` captures the passes; None: they are launched every time. Passes that share it run one at a
        time, and what one leaves is copied before the next runs.
        """
        self._architecture = architecture
        self._layout = layout
        self._start = start
        self._stop: Stop = stop
        self._probe = probe
        self._mlp_share = mlp_share
        self._prepared: dict[int, Prepared] = {}
        self._graphs = graphs
        self._tilings: Sequence[Tiling] = ()

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
        if self._graphs is None or size > BATCH_SIZES[-1]:
            return self._launch(prepared).each(lambda tensor: tensor[:samples])
        if prepared.captured is None:
            prepared.captured = self._graphs.capture(lambda: self._launch(prepared))
        graph, output = prepared.captured
        graph.replay()
        # The next replay writes into the same memory.
        return output.each(lambda tensor: tensor[:samples].clone())

    def _prepare(self, size: int, x: Tensor) -> Prepared:
        tilings = () if self._graphs is None else self._tilings or self._learn_tilings(x)
        plan = self._layout.plan(size, x.device, tilings)
        prepared = Prepared(plan, x.new_zeros(size, *x.shape[1:]))
        if size <= BATCH_SIZES[-1]:
            self._prepared[size] = prepared
        return prepared

    def _learn_tilings(self, x: Tensor) -> Sequence[Tiling]:
        """Runs one sample, to see what a plan is asked for: tilings do not depend on the batch."""
        plan = self._layout.plan(1, x.device)
        plan.update([0, 0], [torch.zeros(self._layout.length, dtype=torch.int64)], [False])
        self._launch(Prepared(plan, x.new_zeros(1, *x.shape[1:])))
        self._tilings = list(plan.asked)
        return self._tilings

    def _launch(self, prepared: Prepared) -> PassResult:
        weights = PlannedWeights(self._layout, prepared.plan)
        of_pass = self._start, self._stop, self._probe, self._mlp_share
        return run(self._architecture, weights, prepared.x, *of_pass)
