"""What every task changed in the encoder, resident once, and the expert sets that are computed from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture, bias_of, weight_of
from mass_serve.backbone.expert_set import ExpertSet
from mass_serve.kernels import BaseOnly, Delta, MaterialisedWeight, OneTask, SeveralTasks, TaskBlocks
from mass_serve.kernels.backend import backend_for
from mass_serve.merging import DenseDelta, TaskSingularVectors, core_factors, merged_parameter
from mass_serve.merging.threads import side_by_side

FACTOR_BYTES = 4  # core factors are float32 whatever the encoder is


class ExpertBank:
    """The task singular vectors and dense deltas of all tasks over one pretrained encoder.

    `pretrained` holds every parameter of the encoder, in the dtype and on the device of the computation;
    blocks are kept in the same dtype. Each task has a rank of its own in every parameter, 0 where it left
    that alone, and the blocks take as much memory as their ranks say.

    For the fused kernels the cores of several tasks are folded into the blocks (see
    `kernels.low_rank.fused`): that costs K (d_in + d_out) numbers a linear for each set, K its summed ranks.
    """

    def __init__(
        self,
        architecture: Architecture,
        pretrained: Mapping[str, Tensor],
        task_ranks: Sequence[Mapping[str, int]],
    ) -> None:
        """Makes room for the tasks, which `set_task` and `take_tasks` fill.

        `task_ranks[t]` holds the rank of task t in every parameter that has blocks, the same ones for all
        tasks. Raises ValueError for other ranks than 0 to min(d_out, d_in).
        """
        self.architecture = architecture
        self.pretrained = pretrained
        self.num_tasks = len(task_ranks)
        like = next(iter(pretrained.values()))
        self.device, self._dtype = like.device, like.dtype
        self._fused = backend_for(self.device) == "fused"
        ranks = _ranks_by_parameter(task_ranks, pretrained)
        # By parameter, as everything here:
        self.blocks = {parameter: _room(pretrained[parameter], own) for parameter, own in ranks.items()}
        self.singular_values = {  # [sum of the ranks] float32
            parameter: torch.zeros(sum(own), device=self.device) for parameter, own in ranks.items()
        }
        self.dense_deltas = {  # [T, ...] float32
            name: torch.zeros(self.num_tasks, *tensor.shape, device=self.device)
            for name, tensor in pretrained.items()
            if name not in ranks
        }

    def set_task(
        self,
        task: int,
        singular_vectors: Mapping[str, TaskSingularVectors],
        dense_deltas: Mapping[str, Tensor],
    ) -> None:
        """Copies one task's change into the bank. Raises ValueError where it does not fit its room."""
        for parameter in self.pretrained:
            if parameter in self.blocks and parameter in singular_vectors:
                self._set_block(task, parameter, singular_vectors[parameter])
            elif parameter in self.dense_deltas and parameter in dense_deltas:
                self._set_delta(task, parameter, dense_deltas[parameter])
            else:
                form = "blocks" if parameter in self.blocks else "delta"
                raise ValueError(f"the task has no {form} for {parameter}")

    def take_tasks(self, other: ExpertBank, places: Mapping[int, int]) -> None:
        """Copies tasks from a bank over the same encoder: its `places[t]` becomes task t here.

        Raises ValueError where a task does not have the same ranks in both.
        """
        for mine, theirs in places.items():
            vectors = {name: other.singular_vectors(name, [theirs])[0] for name in other.blocks}
            self.set_task(mine, vectors, {name: own[theirs] for name, own in other.dense_deltas.items()})

    def _set_block(self, task: int, parameter: str, block: TaskSingularVectors) -> None:
        blocks = self.blocks[parameter]
        place = blocks.places[task]
        u_t, vh = blocks.u_t[place], blocks.vh[place]
        if (block.u.T.shape, block.vh.shape) != (u_t.shape, vh.shape):
            raise ValueError(
                f"{parameter}: blocks {tuple(block.u.shape)} and {tuple(block.vh.shape)}, "
                f"not {tuple(u_t.T.shape)} and {tuple(vh.shape)}"
            )
        u_t.copy_(block.u.T)
        vh.copy_(block.vh)
        self.singular_values[parameter][place] = block.s

    def _set_delta(self, task: int, parameter: str, delta: Tensor) -> None:
        room = self.dense_deltas[parameter][task]
        if delta.shape != room.shape:
            raise ValueError(f"{parameter}: delta {tuple(delta.shape)} for {tuple(room.shape)}")
        room.copy_(delta)

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
            deltas |= self._own_weights(own, tasks, vectors[i])
            experts.append(ExpertSet(tasks, vectors[i], deltas, materialised))
        return experts

    def merged(self, parameter: str, tasks: Sequence[int]) -> Tensor:
        """One parameter of the merged model of the tasks (see `merging.methods.tsv_m`), as pretrained's.

        That of no task is the pretrained one.
        """
        pretrained = self.pretrained[parameter]
        if not tasks:
            return pretrained
        if parameter in self.dense_deltas:
            deltas = self.dense_deltas[parameter]
            return merged_parameter(pretrained, [DenseDelta(deltas[task]) for task in tasks])
        return merged_parameter(pretrained, self.singular_vectors(parameter, tasks))

    def merged_parameters(self, parameters: Collection[str], tasks: Sequence[int]) -> dict[str, Tensor]:
        """`merged` of several parameters, side by side on the threads there are."""
        return dict(zip(parameters, side_by_side(partial(self.merged, tasks=tasks), parameters), strict=True))

    def singular_vectors(self, parameter: str, tasks: Sequence[int]) -> list[TaskSingularVectors]:
        """The singular vectors of each task in one parameter that has blocks (views)."""
        blocks, s = self.blocks[parameter], self.singular_values[parameter]
        places = [blocks.places[task] for task in tasks]
        return [TaskSingularVectors(blocks.u_t[place].T, s[place], blocks.vh[place]) for place in places]

    def leading_singular_values(self, parameter: str, tasks: Sequence[int]) -> Tensor:
        """The first singular values of tasks in one parameter, as `TaskBlocks.leading_rows`: [n, R]."""
        vectors = self.singular_vectors(parameter, tasks)
        least = min(own.rank for own in vectors)
        return torch.stack([own.s[:least] for own in vectors])

    def expert_set_nbytes(self, tasks: Sequence[int], *, materialised: bool) -> int:
        """How much memory the set of these tasks takes beside the shared blocks."""
        numbers = sum(self.pretrained[name].numel() for name in self._vector_names())
        size = numbers * self._dtype.itemsize
        for parameter in map(weight_of, self.architecture.linears):
            size += self._delta_nbytes(parameter, tasks, materialised=materialised)
        return size

    def _delta_nbytes(self, parameter: str, tasks: Sequence[int], *, materialised: bool) -> int:
        """The memory of a set's change of one linear, but for its bias."""
        item, shape = self._dtype.itemsize, self.pretrained[parameter].shape
        blocks = self.blocks.get(parameter)
        if blocks is None:
            return shape.numel() * item
        ranks = [blocks.ranks[task] for task in blocks.changing(tasks)]
        if materialised:
            return shape.numel() * item if ranks else 0
        if len(ranks) < 2:
            return sum(ranks) * item
        return sum(ranks) * sum(shape) * item if self._fused else 2 * sum(ranks) ** 2 * FACTOR_BYTES

    @property
    def task_ranks(self) -> list[dict[str, int]]:
        """Each task's rank in every parameter that has blocks."""
        return [
            {name: blocks.ranks[task] for name, blocks in self.blocks.items()}
            for task in range(self.num_tasks)
        ]

    @property
    def linears(self) -> list[str]:
        """The linears whose weights have blocks."""
        return [linear for linear in self.architecture.linears if weight_of(linear) in self.blocks]

    @property
    def nbytes(self) -> int:
        """The memory of the blocks and dense deltas of all tasks."""
        blocks = sum(block.u_t.nbytes + block.vh.nbytes for block in self.blocks.values())
        rest = (*self.singular_values.values(), *self.dense_deltas.values())
        return blocks + sum(t.nbytes for t in rest)

    def _low_rank(
        self, linear: str, sets: Sequence[tuple[int, ...]], biases: Sequence[Tensor | None]
    ) -> list[Delta]:
        """The low-rank change of each set in one linear, folded for the fused kernels."""
        parameter = weight_of(linear)
        blocks = self.blocks[parameter]
        changing = [blocks.changing(tasks) for tasks in sets]
        several = [tasks for tasks in changing if len(tasks) > 1]
        factors = iter(core_factors(self.singular_vectors(parameter, range(self.num_tasks)), several))
        changes: list[Delta] = []
        for tasks, bias in zip(changing, biases, strict=True):
            if not tasks:
                changes.append(BaseOnly(bias))
            elif len(tasks) == 1:
                s = self.singular_values[parameter][blocks.places[tasks[0]]]
                changes.append(OneTask(tasks[0], s.to(self._dtype), bias))
            elif self._fused:
                changes.append(SeveralTasks(tasks, *next(factors), bias).folded(blocks))
            else:
                left, right = next(factors)
                changes.append(SeveralTasks(tasks, left.float(), right.float(), bias))
        return changes

    def _own_weights(
        self, linears: Sequence[str], tasks: tuple[int, ...], vectors: Mapping[str, Tensor]
    ) -> dict[str, Delta]:
        """The change of one set in those linears, each a merged weight of its own where there is a change."""
        changed = [name for name in map(weight_of, linears) if self._is_changed(name, tasks)]
        weights, deltas = self.merged_parameters(changed, tasks), dict[str, Delta]()
        for linear in linears:
            weight, bias = weights.get(weight_of(linear)), vectors.get(bias_of(linear))
            deltas[linear] = BaseOnly(bias) if weight is None else MaterialisedWeight(weight, bias)
        return deltas

    def _is_changed(self, parameter: str, tasks: Sequence[int]) -> bool:
        return parameter not in self.blocks or bool(self.blocks[parameter].changing(tasks))

    def _vector_names(self) -> list[str]:
        """Every parameter that is not the weight of a linear."""
        weights = set(map(weight_of, self.architecture.linears))
        return [name for name in self.pretrained if name not in weights]


def _ranks_by_parameter(
    task_ranks: Sequence[Mapping[str, int]], pretrained: Mapping[str, Tensor]
) -> dict[str, tuple[int, ...]]:
    """The ranks of all tasks in each parameter that has blocks. Raises ValueError where they do not fit."""
    parameters = task_ranks[0].keys() if task_ranks else ()
    for task, ranks in enumerate(task_ranks):
        if unmatched := sorted(ranks.keys() ^ parameters):
            raise ValueError(f"{unmatched[0]}: task {task} and task 0 must both have blocks, or both a delta")
        for parameter, rank in ranks.items():
            full = min(pretrained[parameter].shape)
            if not 0 <= rank <= full:
                raise ValueError(f"{parameter}: task {task} has rank {rank}, must be in 0..{full}")
    return {parameter: tuple(ranks[parameter] for ranks in task_ranks) for parameter in parameters}


def _room(like: Tensor, ranks: tuple[int, ...]) -> TaskBlocks:
    """Room for blocks of those ranks of a matrix `like` [d_out, d_in]."""
    d_out, d_in = like.shape
    total = sum(ranks)
    return TaskBlocks(like.new_zeros(total, d_out), like.new_zeros(total, d_in), ranks)
