"""A store in memory, as the engine, its search and its measurements read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mass_serve.backbone import Architecture, ExpertBank, Parameters, weight_of
from mass_serve.engine.heads import TaskHead
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.inputs.texts import TextTokenizer
from mass_serve.kernels.backend import backend_for
from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.format.entries import RouterSpec
from mass_serve.router import (
    Calibration,
    LinearSubspaces,
    ModeName,
    early_stop,
    is_of_low_rank,
    own_rank,
)


@dataclass(frozen=True)
class LoadedStore:
    """A store in memory. Task t is the t-th in `bank` and in `heads`.

    The routed tasks come first, those that classify tokens behind them, and else they are in the manifest's
    order: what the router knows of its tasks has their numbers.
    """

    store_revision: str
    architecture: Architecture
    preprocessing: ImagePreprocessor | TextTokenizer
    router: RouterSpec  # as the manifest has it
    mode: ModeName  # the manifest's, or the one that was asked for in its place
    calibration: Calibration | None  # of the tasks that are here
    device: torch.device
    dtype: torch.dtype  # of the encoder's weights; beside int8, all else has the device's `wide_dtype`
    pretrained: Parameters
    first_pass: Parameters  # what the first pass reads: of the merged base, or of `pretrained`
    first_pass_nbytes: int  # beyond `pretrained`
    bank: ExpertBank
    heads: tuple[TaskHead, ...]
    pretrained_sha256: str = ""  # of the file that `pretrained` came from
    # The manifest's backbone and preprocessing, as version 2 writes them.
    encoder: Mapping[str, object] = field(default_factory=dict)
    experts: tuple[
        tuple[str, str], ...
    ] = ()  # path and SHA-256 of the file that each task's blocks came from
    left_out: tuple[str, ...] = ()  # tasks of the store that are not here
    narrows: bool = (
        True  # among many tasks, only likely ones are measured to the end (`engine.measured_tasks`)
    )
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of each, the tasks that are here

    @property
    def routed_heads(self) -> tuple[TaskHead, ...]:
        """The heads of the routed tasks, T in number."""
        return tuple(head for head in self.heads if not head.each_token)

    @property
    def routed(self) -> range:
        """The numbers of the routed tasks."""
        return range(len(self.routed_heads))

    @property
    def residual_blocks(self) -> Tensor:
        """vh [T, R, D] of the linear that the router's feature enters, R the least rank of a task there.

        Those of created tasks are 0.
        """
        parameter = weight_of(self.architecture.residual_linear(self.router.layer))
        if not any(self.created):
            return self.bank.leading_rows(parameter, self.routed)
        with_own = [task for task in self.routed if not self.created[task]]
        width = self.bank.forms[parameter].shape[1]
        own = self.bank.leading_rows(parameter, with_own) if with_own else torch.empty(0, 0, width)
        rows = own.new_zeros(len(self.routed), *own.shape[1:])
        rows[with_own] = own
        return rows

    @cached_property
    def created(self) -> tuple[bool, ...]:
        """Tells of every routed task whether it has no directions of its own, being made of other tasks'."""
        return tuple(head.entry.combination is not None for head in self.routed_heads)

    @cached_property
    def adapters(self) -> tuple[bool, ...]:
        """Tells of every routed task whether it is an adapter.

        Stores say so. Of one that was merged into a model, blocks hold the whole change of low rank, or are
        filled up with directions that mean nothing.
        """
        return tuple(
            head.entry.adapter
            or any(self._is_thin(task, linear) for linear in energy_linears(self.architecture))
            for task, head in enumerate(self.routed_heads)
        )

    def subspaces(self, linears: Sequence[str]) -> dict[str, LinearSubspaces]:
        """The routed tasks' subspaces by linear; with profiles where there is an adapter.

        A created task has none: those of its blocks are of the tasks that it is made of.
        """
        profiled, all_created = any(self.adapters), self.created
        in_parts = self.dtype == torch.bfloat16 and backend_for(self.device) == "fused"

        def of_linear(linear: str) -> LinearSubspaces:
            of_tasks = self.bank.right_singular_vectors(weight_of(linear), self.routed)
            own = [
                (vh[:0], s[:0]) if created else (vh, s)
                for (vh, s), created in zip(of_tasks, all_created, strict=True)
            ]
            blocks, values = zip(*own, strict=True)
            return LinearSubspaces.of(blocks, values, profiled=profiled, in_parts=in_parts)

        return dict(zip(linears, side_by_side(of_linear, linears), strict=True))

    def _is_thin(self, task: int, linear: str) -> bool:
        """Tells whether a task changed a matrix in few directions, all of which its blocks hold."""
        if self.created[task]:
            return False
        parameter = weight_of(linear)
        s = self.bank.singular_values(parameter, task)
        kept, full_rank = self.routed_heads[task].entry.energy_kept, min(self.bank.forms[parameter].shape)
        return is_of_low_rank(len(s), full_rank, kept) or 0 < own_rank(s) < len(s)

    def same_tasks(self, experts: Sequence[tuple[str, str]]) -> dict[int, int]:
        """Task of a store with these files -> the task here that came from the same."""
        places = {file: task for task, file in enumerate(self.experts)}
        return {task: places[file] for task, file in enumerate(experts) if file in places}


def early_linears(architecture: Architecture) -> list[str]:
    """The linears where early evidence is measured."""
    return architecture.early_linears(early_stop(architecture.depth))


def energy_linears(architecture: Architecture) -> list[str]:
    """The linears where early and late evidence is measured."""
    late = architecture.late_linears(early_stop(architecture.depth))
    return [*early_linears(architecture), *late]
