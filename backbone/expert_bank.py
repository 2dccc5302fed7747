"""What every task changed in the encoder, resident once, and the expert sets that are computed from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture, bias_of, weight_of
from mass_serve.backbone.expert_set import ExpertSet
from mass_serve.kernels import Delta, MaterialisedWeight, OneTask, SeveralTasks, TaskBlocks
from mass_serve.kernels.backend import backend_for
from mass_serve.merging import DenseDelta, TaskSingularVectors, core_factors, merged_parameter
from mass_serve.merging.threads import side_by_side

FACTOR_BYTES = 4  # core factors are float32 whatever the encoder is


class ExpertBank:
    """The task singular vectors and dense deltas of all tasks over one pretrained encoder.

    `pretrained` holds every parameter of the encoder, in the dtype and on the device of the computation;
    blocks are kept in the same dtype. Task t is the t-th task added.

    For the fused kernels u lies in memory as its transpose, and the cores of several tasks are folded into
    the blocks (see `kernels.low_rank.fused`): that costs K (d_in + d_out) numbers a linear for each set.
    """

    def __init__(self, architecture: Architecture, pretrained: Mapping[str, Tensor], num_tasks: int) -> None:
        self.architecture = architecture
        self.pretrained = pretrained
        self.num_tasks = num_tasks
        # By parameter, as everything here:
        self.blocks: dict[str, TaskBlocks] = {}
        self.singular_values: dict[str, Tensor] = {}  # [T, R] float32
        self.dense_deltas: dict[str, Tensor] = {}  # [T, ...] float32
        self._like = next(iter(pretrained.values()))
        self.device = self._like.device
        self._fused = backend_for(self.device) == "fused"

    def set_task(
        self,
        task: int,
        singular_vectors: Mapping[str, TaskSingularVectors],
        dense_deltas: Mapping[str, Tensor],
    ) -> None:
        """Copies one task's change into the bank. Raises ValueError where it does not fit the encoder."""
        missing = set(self.pretrained) - set(singular_vectors) - set(dense_deltas)
        if missing:
            raise ValueError(f"the task has no change for {', '.join(sorted(missing))}")
        for parameter, block in singular_vectors.items():
            self._set_block(task, parameter, block)
        for parameter, delta in dense_deltas.items():
            expected = self.pretrained[parameter]
            if delta.shape != expected.shape:
                raise ValueError(f"{parameter}: delta {tuple(delta.shape)} for {tuple(expected.shape)}")
            self._delta_room(parameter)[task] = delta

    def take_tasks(self, other: ExpertBank, places: Mapping[int, int]) -> None:
        """Copies tasks from a bank over the same encoder: its `places[t]` becomes task t here."""
        if not places:
            return
        mine, theirs = list(places), list(places.values())
        for parameter, block in other.blocks.items():
            kept = self._block_room(parameter, block.u.shape[1:], block.vh.shape[1:])
            kept.u[mine] = block.u[theirs]
            kept.vh[mine] = block.vh[theirs]
            self.singular_values[parameter][mine] = other.singular_values[parameter][theirs]
        for parameter, deltas in other.dense_deltas.items():
            self._delta_room(parameter)[mine] = deltas[theirs]

    def _set_block(self, task: int, parameter: str, block: TaskSingularVectors) -> None:
        like = self.pretrained[parameter]
        if (block.u.shape[0], block.vh.shape[1]) != tuple(like.shape):
            raise ValueError(
                f"{parameter}: blocks for {(block.u.shape[0], block.vh.shape[1])}, not {tuple(like.shape)}"
            )
        room = self._block_room(parameter, block.u.shape, block.vh.shape)
        kept = self.singular_values[parameter]
        if block.rank != kept.shape[1]:
            raise ValueError(f"{parameter}: rank {block.rank}, not {kept.shape[1]}")
        room.u[task] = block.u
        room.vh[task] = block.vh
        kept[task] = block.s

    def _block_room(self, parameter: str, u_shape: Sequence[int], vh_shape: Sequence[int]) -> TaskBlocks:
        """Where the blocks of a parameter are kept, made at the first task."""
        if parameter not in self.blocks:
            like, tasks = self._like, self.num_tasks
            if self._fused:
                u = like.new_zeros(tasks, u_shape[1], u_shape[0]).transpose(1, 2)
            else:
                u = like.new_zeros(tasks, *u_shape)
            self.blocks[parameter] = TaskBlocks(u, like.new_zeros(tasks, *vh_shape))
            self.singular_values[parameter] = torch.zeros(tasks, u_shape[1], device=like.device)
        return self.blocks[parameter]

    def _delta_room(self, parameter: str) -> Tensor:
        """Where the deltas of a parameter are kept, made at the first task."""
        if parameter not in self.dense_deltas:
            like = self.pretrained[parameter]
            self.dense_deltas[parameter] = torch.zeros(self.num_tasks, *like.shape, device=like.device)
        return self.dense_deltas[parameter]

    def expert_set(self, tasks: tuple[int, ...], *, materialised: bool) -> ExpertSet:
        """The weights of a set, computed from the shared blocks (see `merging.methods.tsv_m`)."""
        return self.expert_sets([tasks], materialised=materialised)[0]

    def expert_sets(self, sets: Sequence[tuple[int, ...]], *, materialised: bool) -> list[ExpertSet]:
        """The weights of several sets; low-rank ones together cost less than one after the other."""
        vectors = [self.merged_parameters(self._vector_names(), tasks) for tasks in sets]
        low_rank = [] if materialised else self.linears

        def of_linear(linear: str) -> list[Delta]:
            return self._low_rank(linear, sets, [of_set.get(bias_of(linear)) for of_set in vectors])

        by_linear = dict(zip(low_rank, side_by_side(of_linear, low_rank), strict=True))
        experts = []
        for i, tasks in enumerate(sets):
            deltas = {linear: of_sets[i] for linear, of_sets in by_linear.items()}
            own = [linear for linear in self.architecture.linears if linear not in deltas]
            deltas |= self._merged_weights(own, tasks, vectors[i])
            experts.append(ExpertSet(tasks, vectors[i], deltas, materialised))
        return experts

    def merged(self, parameter: str, tasks: Sequence[int]) -> Tensor:
        """One parameter of the merged model of the tasks (see `merging.methods.tsv_m`), as pretrained's."""
        pretrained = self.pretrained[parameter]
        if parameter in self.dense_deltas:
            deltas = self.dense_deltas[parameter]
            return merged_parameter(pretrained, [DenseDelta(deltas[task]) for task in tasks])
        return merged_parameter(pretrained, self.singular_vectors(parameter, tasks))

    def merged_parameters(self, parameters: Collection[str], tasks: Sequence[int]) -> dict[str, Tensor]:
        """`merged` of several parameters, side by side on the threads there are."""
        return dict(zip(parameters, side_by_side(partial(self.merged, tasks=tasks), parameters), strict=True))

    def singular_vectors(self, parameter: str, tasks: Sequence[int]) -> list[TaskSingularVectors]:
        """The singular vectors of each task in one parameter that has blocks."""
        blocks, s = self.blocks[parameter], self.singular_values[parameter]
        return [TaskSingularVectors(blocks.u[task], s[task], blocks.vh[task]) for task in tasks]

    def expert_set_nbytes(self, num_tasks: int, *, materialised: bool) -> int:
        """How much memory a set of `num_tasks` tasks takes beside the shared blocks."""
        item = self._like.element_size()
        size = sum(self.pretrained[name].numel() for name in self._vector_names()) * item
        for parameter in map(weight_of, self.architecture.linears):
            if materialised or parameter not in self.blocks:
                size += self.pretrained[parameter].numel() * item
                continue
            rank = self.singular_values[parameter].shape[1]
            if num_tasks == 1:
                size += rank * item
            elif self._fused:
                size += num_tasks * rank * sum(self.pretrained[parameter].shape) * item
            else:
                size += 2 * (num_tasks * rank) ** 2 * FACTOR_BYTES
        return size

    @property
    def linears(self) -> list[str]:
        """The linears whose weights have blocks."""
        return [linear for linear in self.architecture.linears if weight_of(linear) in self.blocks]

    @property
    def nbytes(self) -> int:
        """The memory of the blocks and dense deltas of all tasks."""
        blocks = sum(block.u.nbytes + block.vh.nbytes for block in self.blocks.values())
        rest = (*self.singular_values.values(), *self.dense_deltas.values())
        return blocks + sum(t.nbytes for t in rest)

    def _low_rank(
        self, linear: str, sets: Sequence[tuple[int, ...]], biases: Sequence[Tensor | None]
    ) -> list[Delta]:
        """The low-rank change of each set in one linear, folded for the fused kernels."""
        parameter = weight_of(linear)
        blocks = self.blocks[parameter]
        several = [tasks for tasks in sets if len(tasks) > 1]
        factors = iter(core_factors(self.singular_vectors(parameter, range(self.num_tasks)), several))
        changes: list[Delta] = []
        for tasks, bias in zip(sets, biases, strict=True):
            if len(tasks) == 1:
                s = self.singular_values[parameter][tasks[0]].to(blocks.u.dtype)
                changes.append(OneTask(tasks[0], s, bias))
                continue
            left, right = next(factors)
            if self._fused:
                changes.append(SeveralTasks(tasks, left, right, bias).folded(blocks))
            else:
                changes.append(SeveralTasks(tasks, left.float(), right.float(), bias))
        return changes

    def _merged_weights(
        self, linears: Sequence[str], tasks: tuple[int, ...], vectors: Mapping[str, Tensor]
    ) -> dict[str, Delta]:
        """The change of one set in those linears, each a merged weight of its own."""
        weights = self.merged_parameters([weight_of(linear) for linear in linears], tasks)
        return {
            linear: MaterialisedWeight(weights[weight_of(linear)], vectors.get(bias_of(linear)))
            for linear in linears
        }

    def _vector_names(self) -> list[str]:
        """Every parameter that is not the weight of a linear."""
        weights = set(map(weight_of, self.architecture.linears))
        return [name for name in self.pretrained if name not in weights]
