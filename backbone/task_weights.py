"""What one task changed in the encoder, as it lies in memory and as the passes read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mass_serve.kernels import PackedRows, Rows, TaskBlock, Weight
from mass_serve.merging import PackedSingularVectors, TaskSingularVectors

# The singular vectors of one task in one parameter, in whichever format they are kept.
KeptVectors = TaskSingularVectors | PackedSingularVectors[PackedRows]
# The singular vectors and the dense deltas of one task, by parameter.
TaskChanges = tuple[Mapping[str, KeptVectors], Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class TaskWeights:
    """The changes of one task, on the device; of a parameter that it left alone there is nothing."""

    blocks: Mapping[str, TaskBlock]  # by parameter
    singular_values: Mapping[str, Tensor]  # s [R] float32 of each block
    dense_deltas: Mapping[str, Tensor]  # float32, of the shape of a parameter without blocks

    @classmethod
    def of(
        cls,
        changes: TaskChanges,
        pretrained: Mapping[str, Weight],
        ranks: Mapping[str, int],
        *,
        narrow: bool,
    ) -> TaskWeights:
        """Puts a task's changes on the device and into the dtype of the pretrained parameters.

        With `narrow`, blocks that have fewer bits than that dtype stay as they are; packed ones do always.
        Raises ValueError for changes that are not of these parameters, and for blocks of other `ranks`.
        """
        vectors, deltas = changes
        for name, before in pretrained.items():
            if name in ranks and name in vectors:
                _check_block(name, vectors[name], before, ranks[name])
            elif name not in ranks and name in deltas:
                if (found := deltas[name].shape) != before.shape:
                    raise ValueError(f"{name}: delta {tuple(found)} for {tuple(before.shape)}")
            else:
                raise ValueError(f"the task has no {'blocks' if name in ranks else 'delta'} for {name}")

        # All are copies: what is given may share its memory with what is not kept.
        def side(rows: Tensor, like: Weight) -> Tensor:
            stays = narrow and rows.dtype.itemsize < like.dtype.itemsize
            dtype = rows.dtype if stays else like.dtype
            return torch.empty(rows.shape, dtype=dtype, device=like.device).copy_(rows)

        def block(own: KeptVectors, like: Weight) -> TaskBlock:
            if isinstance(own, PackedSingularVectors):
                return TaskBlock(own.u_t.to(like.device), own.vh.to(like.device))
            return TaskBlock(side(own.u.T, like), side(own.vh, like))

        def small(numbers: Tensor, like: Weight) -> Tensor:
            return numbers.to(like.device, torch.float32, copy=True)

        changed = {name: (vectors[name], pretrained[name]) for name, rank in ranks.items() if rank}
        dense = {name: deltas[name] for name in pretrained if name not in ranks and deltas[name].any()}
        return cls(
            {name: block(own, at) for name, (own, at) in changed.items()},
            {name: small(own.s, at) for name, (own, at) in changed.items()},
            {name: small(own, pretrained[name]) for name, own in dense.items()},
        )

    @property
    def is_packed(self) -> bool:
        """Whether any block is."""
        return any(own.is_packed for own in self.blocks.values())

    def sharing(self, right: Mapping[str, Rows]) -> TaskWeights:
        """The same, with equal right sides V_t that are in memory already in place of its own."""
        shared = {name: TaskBlock(own.u_t, right[name]) for name, own in self.blocks.items() if name in right}
        return TaskWeights({**self.blocks, **shared}, self.singular_values, self.dense_deltas)

    def nbytes(self, without: Collection[str] = ()) -> int:
        """Their memory, but for the right sides V_t of the parameters `without`."""
        shared = sum(self.blocks[name].vh.nbytes for name in without if name in self.blocks)
        small = (*self.singular_values.values(), *self.dense_deltas.values())
        return sum(own.nbytes for own in self.blocks.values()) + sum(t.nbytes for t in small) - shared


def _check_block(parameter: str, block: KeptVectors, before: Weight, rank: int) -> None:
    u, vh = (block.shape[0], block.rank), (block.rank, block.shape[1])
    if (u, vh) != (expected := ((before.shape[0], rank), (rank, before.shape[1]))):
        raise ValueError(f"{parameter}: blocks {u} and {vh}, not {expected[0]} and {expected[1]}")


def ranks_by_parameter(
    task_ranks: Sequence[Mapping[str, int]], pretrained: Mapping[str, Weight]
) -> dict[str, tuple[int, ...]]:
    """Returns the ranks of all tasks by parameter. Raises ValueError where no parameter can have them."""
    parameters = task_ranks[0].keys() if task_ranks else ()
    for task, ranks in enumerate(task_ranks):
        if unmatched := sorted(ranks.keys() ^ parameters):
            raise ValueError(f"{unmatched[0]}: task {task} and task 0 must both have blocks, or both a delta")
        for parameter, rank in ranks.items():
            full = min(pretrained[parameter].shape)
            if not 0 <= rank <= full:
                raise ValueError(f"{parameter}: task {task} has rank {rank}, must be in 0..{full}")
    return {parameter: tuple(ranks[parameter] for ranks in task_ranks) for parameter in parameters}
