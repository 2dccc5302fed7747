"""What every task changed in the encoder, resident once, and the little that an expert set adds to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mass_serve.backbone.config import EncoderConfig
from mass_serve.kernels import SegmentDelta, TaskBlocks, folded_sides
from mass_serve.kernels.backend import backend_for
from mass_serve.merging import TaskSingularVectors, core_factors, mean_delta, merged_delta
from mass_serve.merging.threads import side_by_side

POSITIONS = "position_embedding.weight"
FACTOR_BYTES = 4  # core factors are float32 whatever the encoder is


Sides = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class ExpertSet:
    """The weights of one expert set, as far as they are not the shared blocks."""

    tasks: tuple[int, ...]
    vectors: dict[str, Tensor]  # biases, LayerNorms, class embedding and positions, whole (not their change)
    cores: dict[str, Tensor]  # by linear, as in `kernels.SegmentDelta`; no entry where materialised
    weights: dict[str, Tensor]  # by linear: [d_out, d_in] where materialised
    sides: dict[str, Sides]  # by linear: in place of the core where that is folded
    materialised: bool

    def delta(self, linear: str) -> SegmentDelta:
        """What this set does in one linear."""
        bias = self.vectors.get(f"{linear}.bias")
        own = (bias, self.weights.get(linear), self.sides.get(linear))
        return SegmentDelta(self.tasks, self.cores.get(linear), *own)

    @property
    def nbytes(self) -> int:
        """The memory that this set takes beside the shared blocks."""
        sides = sum(side.nbytes for pair in self.sides.values() for side in pair)
        whole = (self.vectors, self.cores, self.weights)
        return sides + sum(t.nbytes for part in whole for t in part.values())


class ExpertBank:
    """The task singular vectors and dense deltas of all tasks over one pretrained encoder.

    `pretrained` holds every parameter of the encoder, in the dtype and on the device of the computation;
    blocks are kept in the same dtype. Task t is the t-th task added.

    For the fused kernels u lies in memory as its transpose, and the cores of several tasks are folded into
    the blocks (see `kernels.low_rank.fused`): that costs K (d_in + d_out) numbers a linear for each set.
    """

    def __init__(self, config: EncoderConfig, pretrained: Mapping[str, Tensor], num_tasks: int) -> None:
        self.config = config
        self.pretrained = pretrained
        self.num_tasks = num_tasks
        self.blocks: dict[str, TaskBlocks] = {}  # by linear; the position embedding under POSITIONS
        self.singular_values: dict[str, Tensor] = {}  # [T, R] float32, by the same names
        self.dense_deltas: dict[str, Tensor] = {}  # [T, ...] float32, by parameter
        self.device = pretrained["class_embedding"].device
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
            self._set_block(task, _bank_name(parameter), parameter, block)
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
        for name, block in other.blocks.items():
            kept = self._block_room(name, block.u.shape[1:], block.vh.shape[1:])
            kept.u[mine] = block.u[theirs]
            kept.vh[mine] = block.vh[theirs]
            self.singular_values[name][mine] = other.singular_values[name][theirs]
        for parameter, deltas in other.dense_deltas.items():
            self._delta_room(parameter)[mine] = deltas[theirs]

    def _set_block(self, task: int, name: str, parameter: str, block: TaskSingularVectors) -> None:
        like = self.pretrained[parameter]
        if (block.u.shape[0], block.vh.shape[1]) != tuple(like.shape):
            raise ValueError(
                f"{parameter}: blocks for {(block.u.shape[0], block.vh.shape[1])}, not {tuple(like.shape)}"
            )
        room = self._block_room(name, block.u.shape, block.vh.shape)
        if block.rank != self.singular_values[name].shape[1]:
            raise ValueError(f"{parameter}: rank {block.rank}, not {self.singular_values[name].shape[1]}")
        room.u[task] = block.u
        room.vh[task] = block.vh
        self.singular_values[name][task] = block.s

    def _block_room(self, name: str, u_shape: Sequence[int], vh_shape: Sequence[int]) -> TaskBlocks:
        """Where the blocks of a bank name are kept, made at the first task."""
        if name not in self.blocks:
            like = self.pretrained["class_embedding"]
            if self._fused:
                u = like.new_zeros(self.num_tasks, u_shape[1], u_shape[0]).transpose(1, 2)
            else:
                u = like.new_zeros(self.num_tasks, *u_shape)
            self.blocks[name] = TaskBlocks(u, like.new_zeros(self.num_tasks, *vh_shape))
            self.singular_values[name] = torch.zeros(self.num_tasks, u_shape[1], device=like.device)
        return self.blocks[name]

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
        whole = [linear for linear in self.config.linears if materialised or linear not in self.blocks]
        linears = [linear for linear in self.config.linears if linear not in whole]
        cores = list(side_by_side(partial(self._cores, sets=sets), linears))  # by linear, then by set
        experts = []
        for i, tasks in enumerate(sets):
            vectors = self.merged_parameters(self._vector_names(), tasks)
            merged = self.merged_parameters([f"{linear}.weight" for linear in whole], tasks)
            weights = {linear: merged[f"{linear}.weight"] for linear in whole}
            own = {linear: of_sets[i] for linear, of_sets in zip(linears, cores, strict=True)}
            own_cores = {linear: core for linear, core in own.items() if isinstance(core, Tensor)}
            sides = {linear: core for linear, core in own.items() if not isinstance(core, Tensor)}
            experts.append(ExpertSet(tasks, vectors, own_cores, weights, sides, materialised))
        return experts

    def merged(self, parameter: str, tasks: Sequence[int]) -> Tensor:
        """`pretrained + merged delta of the tasks` of one parameter, in the dtype of the pretrained one."""
        pretrained = self.pretrained[parameter]
        if parameter in self.dense_deltas:
            delta = mean_delta([self.dense_deltas[parameter][task] for task in tasks])
        else:
            delta = merged_delta(self._singular_vectors(_bank_name(parameter), tasks))
        return (pretrained.float() + delta).to(pretrained.dtype)

    def merged_parameters(self, parameters: Collection[str], tasks: Sequence[int]) -> dict[str, Tensor]:
        """`merged` of several parameters, side by side on the threads there are."""
        return dict(zip(parameters, side_by_side(partial(self.merged, tasks=tasks), parameters), strict=True))

    def expert_set_nbytes(self, num_tasks: int, *, materialised: bool) -> int:
        """How much memory a set of `num_tasks` tasks takes beside the shared blocks."""
        item = self.pretrained["class_embedding"].element_size()
        size = sum(self.pretrained[name].numel() for name in self._vector_names()) * item
        for linear in self.config.linears:
            if materialised or linear not in self.blocks:
                size += self.pretrained[f"{linear}.weight"].numel() * item
                continue
            rank = self.singular_values[linear].shape[1]
            if num_tasks == 1:
                size += rank * item
            elif self._fused:
                size += num_tasks * rank * sum(self.pretrained[f"{linear}.weight"].shape) * item
            else:
                size += 2 * (num_tasks * rank) ** 2 * FACTOR_BYTES
        return size

    @property
    def linears(self) -> list[str]:
        """The linears that have blocks."""
        return [linear for linear in self.config.linears if linear in self.blocks]

    @property
    def nbytes(self) -> int:
        """The memory of the blocks and dense deltas of all tasks."""
        blocks = sum(block.u.nbytes + block.vh.nbytes for block in self.blocks.values())
        rest = (*self.singular_values.values(), *self.dense_deltas.values())
        return blocks + sum(t.nbytes for t in rest)

    def _cores(self, name: str, sets: Sequence[tuple[int, ...]]) -> list[Tensor | Sides]:
        """The cores of one linear, or the sides that they are folded into, as `kernels.SegmentDelta` has."""
        several = [tasks for tasks in sets if len(tasks) > 1]
        blocks = self._singular_vectors(name, range(self.num_tasks))
        factors = iter(core_factors(blocks, several))
        dtype = self.blocks[name].u.dtype
        cores: list[Tensor | Sides] = []
        for tasks in sets:
            if len(tasks) == 1:
                cores.append(self.singular_values[name][tasks[0]].to(dtype))
            elif self._fused:
                cores.append(folded_sides(self.blocks[name], tasks, *next(factors)))
            else:
                cores.append(torch.stack(next(factors)).float())
        return cores

    def _singular_vectors(self, name: str, tasks: Sequence[int]) -> list[TaskSingularVectors]:
        blocks, s = self.blocks[name], self.singular_values[name]
        return [TaskSingularVectors(blocks.u[task], s[task], blocks.vh[task]) for task in tasks]

    def _vector_names(self) -> list[str]:
        """Every parameter that is not applied as a matrix product."""
        return [name for name in self.pretrained if _bank_name(name) not in self.config.linears]


def _bank_name(parameter: str) -> str:
    """The name of a factored parameter's blocks: the linear's, or the positions' own."""
    return parameter if parameter == POSITIONS else parameter.removesuffix(".weight")
