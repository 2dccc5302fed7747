"""What every task changed in the encoder, in memory once, and the expert sets that are computed from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture, bias_of, weight_of
from mass_serve.backbone.expert_set import ExpertSet
from mass_serve.backbone.parameters import Parameters, forms_of
from mass_serve.backbone.resident_tasks import ResidentTasks
from mass_serve.backbone.task_weights import KeptVectors, TaskChanges, TaskWeights, ranks_by_parameter
from mass_serve.kernels import (
    BaseOnly,
    Delta,
    MaterialisedWeight,
    OneTask,
    Rows,
    SeveralTasks,
    SmallSides,
    directions_of,
)
from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.low_rank.deltas import is_small
from mass_serve.merging import DenseDelta, TaskChange, TaskSingularVectors, core_factors, merged_parameter
from mass_serve.merging.threads import side_by_side

MOST_SETS_KNOWN = 4096  # whose sizes are kept
FACTOR_BYTES = 4  # core factors are float32 whatever the encoder is


class ExpertBank:
    """The task singular vectors and dense deltas of all tasks over one pretrained encoder.

    `pretrained` holds every parameter of the encoder, in the dtype and on the device of the computation, of
    which some may be quantised (see `backbone.parameters`).
    Blocks of fewer bits stay as they are and are widened in the product; the fused kernels read packed blocks
    and those in the dtype of the computation alone. Each task has a rank of its own in every parameter, 0
    where it left that alone, and the blocks take as much memory as their ranks say.

    With a budget for `tasks`, their weights in memory, those that were not used for longest are dropped and
    read again. Not dropped are the right sides of the `routing` parameters, which a router judges by.

    For the fused kernels the cores of several tasks are folded into the blocks (see
    `kernels.low_rank.fused`): that costs K (d_in + d_out) numbers a linear for each set, K its summed ranks.
    """

    def __init__(
        self,
        architecture: Architecture,
        pretrained: Parameters,
        task_ranks: Sequence[Mapping[str, int]],
        resident_bytes: int | None = None,
        routing: Collection[str] = (),
    ) -> None:
        """Makes places for the tasks, which `set_task` and `take_tasks` fill.

        `task_ranks[t]` holds the rank of task t in every parameter that has blocks, the same ones for all
        tasks. Raises ValueError for other ranks than 0 to min(d_out, d_in).
        """
        self.architecture = architecture
        self.pretrained = pretrained
        self.forms = forms_of(pretrained)  # as products read them
        self.num_tasks = len(task_ranks)
        like = next(iter(self.forms.values()))
        self.device, self._dtype = like.device, like.dtype
        # Nothing, in the dtype and on the device of the computation.
        self.like = torch.empty(0, dtype=self._dtype, device=self.device)
        self._fused = backend_for(self.device) == "fused"
        # By parameter that has blocks: the rank of every task.
        self.ranks = ranks_by_parameter(task_ranks, self.forms)
        self._small = frozenset() if self._fused else self._small_linears()
        self.tasks = ResidentTasks(resident_bytes)
        self._routing = frozenset(routing)
        # Of each task, the right side V_t and the singular values of routing parameters.
        self._routed_by: dict[int, dict[str, tuple[Rows, Tensor]]] = {}
        self._packed: set[int] = set()
        # Of each task, the parameters without blocks that it changed.
        self._dense_changes: dict[int, frozenset[str]] = {}
        # What `expert_set_nbytes` has found: it looks at every parameter, and is asked for every batch.
        self._set_nbytes: dict[tuple[tuple[int, ...], bool], int] = {}

    def set_task(
        self,
        task: int,
        singular_vectors: Mapping[str, KeptVectors],
        dense_deltas: Mapping[str, Tensor],
        read_again: Callable[[], TaskChanges] | None = None,
    ) -> None:
        """Takes one task's change into the bank. Raises ValueError where it does not fit its place.

        With `read_again`, which gives the same once more, it may be dropped.
        """
        ranks = {name: of_tasks[task] for name, of_tasks in self.ranks.items()}
        placed = partial(TaskWeights.of, pretrained=self.forms, ranks=ranks, narrow=not self._fused)
        weights = placed((singular_vectors, dense_deltas))
        right = {name: weights.blocks[name].vh for name in self._routing if name in weights.blocks}
        self._routed_by[task] = {name: (vh, weights.singular_values[name]) for name, vh in right.items()}
        self._dense_changes[task] = frozenset(weights.dense_deltas)
        if weights.is_packed:
            self._packed.add(task)
        self._set_nbytes.clear()
        # Not of this bank: one that takes the task over must not keep this one alive.
        read = None if read_again is None else partial(_read, read_again, placed, right)
        self.tasks.put(task, weights, weights.nbytes(without=right), read)

    def take_tasks(self, other: ExpertBank, places: Mapping[int, int]) -> None:
        """Shares tasks of a bank over the same encoder: its `places[t]` becomes task t here.

        Raises ValueError where a task does not have the same ranks in both.
        """
        for mine, theirs in places.items():
            for parameter in self.ranks.keys() | other.ranks.keys():
                found, expected = (
                    bank._rank(parameter, task) for bank, task in ((other, theirs), (self, mine))
                )
                if found != expected:
                    raise ValueError(f"{parameter}: blocks of rank {found}, not {expected}")
            self.tasks.take(mine, other.tasks, theirs)
            self._routed_by[mine] = other._routed_by[theirs]
            self._dense_changes[mine] = other._dense_changes[theirs]
            if theirs in other._packed:
                self._packed.add(mine)
        self._set_nbytes.clear()

    def _rank(self, parameter: str, task: int) -> int | None:
        ranks = self.ranks.get(parameter)
        return None if ranks is None else ranks[task]

    def expert_set(self, tasks: tuple[int, ...], *, materialised: bool) -> ExpertSet:
        """The weights of a set, computed from the shared blocks (see `merging.methods.tsv_m`)."""
        return self.expert_sets([tasks], materialised=materialised)[0]

    def expert_sets(self, sets: Sequence[tuple[int, ...]], *, materialised: bool) -> list[ExpertSet]:
        """The weights of several sets; low-rank ones together cost less than one after the other."""
        held = self._held({task for tasks in sets for task in tasks})
        changed = [self._changed(self._vector_names(), tasks) for tasks in sets]
        vectors = [
            self._merged(names, [held[task] for task in tasks])
            for names, tasks in zip(changed, sets, strict=True)
        ]
        low_rank = [] if materialised else self.linears

        def of_linear(linear: str) -> list[Delta]:
            biases = [self._bias(linear, of_set) for of_set in vectors]
            return self._low_rank(linear, sets, held, biases)

        by_linear = dict(zip(low_rank, side_by_side(of_linear, low_rank), strict=True))
        experts = []
        for i, tasks in enumerate(sets):
            deltas = {linear: of_sets[i] for linear, of_sets in by_linear.items()}
            own = [linear for linear in self.architecture.linears if linear not in deltas]
            deltas |= self._own_weights(own, tasks, held, vectors[i])
            unchanged = {name: self.pretrained[name] for name in self._vector_names()}
            experts.append(
                ExpertSet(tasks, unchanged | vectors[i], deltas, materialised, frozenset(vectors[i]))
            )
        return experts

    def merged(self, parameter: str, tasks: Sequence[int]) -> Tensor:
        """One parameter of the merged model of the tasks (see `merging.methods.tsv_m`), as pretrained's.

        That of no task is the pretrained one, and so is one that none of the tasks changed.
        """
        return self.merged_parameters([parameter], tasks)[parameter]

    def merged_parameters(self, parameters: Collection[str], tasks: Sequence[int]) -> dict[str, Tensor]:
        """`merged` of several parameters, side by side on the threads there are."""
        held = self._held(tasks)
        merged = self._merged(self._changed(parameters, tasks), [held[task] for task in tasks])
        return {name: self._or_pretrained(merged, name) for name in parameters}

    def singular_vectors(self, parameter: str, tasks: Sequence[int]) -> list[TaskSingularVectors]:
        """The singular vectors of each task in one parameter that has blocks (views, but of packed ones)."""
        return [self._singular_vectors(self.tasks.get(task), parameter) for task in tasks]

    def right_singular_vectors(self, parameter: str, tasks: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """The rows V_t [R_t, d_in] and the singular values s [R_t] of each task in one parameter.

        Those of routing parameters are always in memory.
        """
        return [self._right(parameter, task) for task in tasks]

    def singular_values(self, parameter: str, task: int) -> Tensor:
        """The singular values s [R_t] of a task in one parameter, as `right_singular_vectors` has them."""
        kept = self._routed_by[task].get(parameter)
        return self._right(parameter, task)[1] if kept is None else kept[1]

    def leading_rows(self, parameter: str, tasks: Sequence[int]) -> Tensor:
        """The first rows of V_t of n tasks in one parameter, as many as all of them have: [n, R, d_in]."""
        rows = [vh for vh, _ in self.right_singular_vectors(parameter, tasks)]
        least = min(map(len, rows))
        return torch.stack([own[:least].to(self._dtype) for own in rows])

    def dense_delta(self, parameter: str, task: int) -> Tensor:
        """What a task changed of a parameter that has no blocks, in float32."""
        delta = self.tasks.get(task).dense_deltas.get(parameter)
        return self._no_delta(parameter) if delta is None else delta

    def expert_set_nbytes(self, tasks: Sequence[int], *, materialised: bool) -> int:
        """How much memory the set of these tasks takes beside the shared blocks."""
        key = tuple(tasks), materialised
        nbytes = self._set_nbytes.get(key)
        if nbytes is None:
            if len(self._set_nbytes) >= MOST_SETS_KNOWN:
                self._set_nbytes.clear()
            nbytes = self._set_nbytes[key] = self._nbytes_of_set(tasks, materialised=materialised)
        return nbytes

    def _nbytes_of_set(self, tasks: Sequence[int], *, materialised: bool) -> int:
        changed = self._changed(self._vector_names(), tasks)
        size = sum(self.forms[name].shape.numel() for name in changed) * self._dtype.itemsize
        for parameter in map(weight_of, self.architecture.linears):
            size += self._delta_nbytes(parameter, tasks, materialised=materialised)
        return size

    def _delta_nbytes(self, parameter: str, tasks: Sequence[int], *, materialised: bool) -> int:
        """The memory of a set's change of one linear, but for its bias."""
        item, shape = self._dtype.itemsize, self.forms[parameter].shape
        if not self._is_changed(parameter, tasks):
            return 0
        if parameter not in self.ranks or materialised:
            return shape.numel() * item
        changing = self._changing(parameter, tasks)
        ranks = [self.ranks[parameter][task] for task in changing]
        if parameter in self._small:
            return SmallSides.nbytes_of(sum(ranks), shape)
        if len(ranks) < 2:
            return sum(ranks) * (FACTOR_BYTES if self._packed.intersection(changing) else item)
        return sum(ranks) * sum(shape) * item if self._fused else 2 * sum(ranks) ** 2 * FACTOR_BYTES

    @property
    def task_ranks(self) -> list[dict[str, int]]:
        """Each task's rank in every parameter that has blocks."""
        return [{name: ranks[task] for name, ranks in self.ranks.items()} for task in range(self.num_tasks)]

    @property
    def has_packed_blocks(self) -> bool:
        """Tells whether any task has packed blocks."""
        return bool(self._packed)

    @property
    def linears(self) -> list[str]:
        """The linears whose weights have blocks."""
        return [linear for linear in self.architecture.linears if weight_of(linear) in self.ranks]

    @property
    def nbytes(self) -> int:
        """The memory of the blocks and dense deltas that are there now."""
        return self.tasks.nbytes + sum(
            vh.nbytes for own in self._routed_by.values() for vh, _ in own.values()
        )

    def _held(self, tasks: Collection[int]) -> dict[int, TaskWeights]:
        """The weights of tasks, which stay in memory for as long as the caller has them."""
        return {task: self.tasks.get(task) for task in tasks}

    def _merged(self, parameters: Collection[str], tasks: Sequence[TaskWeights]) -> dict[str, Tensor]:
        """The merged parameters of tasks that have changed them."""

        def merged(parameter: str) -> Tensor:
            return merged_parameter(
                self.pretrained[parameter], [self._change(own, parameter) for own in tasks]
            )

        return dict(zip(parameters, side_by_side(merged, parameters), strict=True))

    def _change(self, weights: TaskWeights, parameter: str) -> TaskChange:
        if parameter in self.ranks:
            return self._singular_vectors(weights, parameter)
        delta = weights.dense_deltas.get(parameter)
        return DenseDelta(self._no_delta(parameter) if delta is None else delta)

    def _singular_vectors(self, weights: TaskWeights, parameter: str) -> TaskSingularVectors:
        block = weights.blocks.get(parameter)
        if block is not None:
            s = weights.singular_values[parameter]
            return TaskSingularVectors(directions_of(block.u_t).T, s, directions_of(block.vh))
        d_out, d_in = self.forms[parameter].shape
        empty = self.like.new_empty
        return TaskSingularVectors(empty(d_out, 0), empty(0).float(), empty(0, d_in))

    def _right(self, parameter: str, task: int) -> tuple[Tensor, Tensor]:
        if (kept := self._routed_by[task].get(parameter)) is not None:
            vh, s = kept
            return directions_of(vh), s
        if not self.ranks[parameter][task]:
            return self.like.new_empty(0, self.forms[parameter].shape[1]), self.like.new_empty(0).float()
        (vectors,) = self.singular_vectors(parameter, [task])
        return vectors.vh, vectors.s

    def _no_delta(self, parameter: str) -> Tensor:
        return torch.zeros(self.forms[parameter].shape, device=self.device)

    def _or_pretrained(self, changed: Mapping[str, Tensor], parameter: str) -> Tensor:
        return changed[parameter] if parameter in changed else self.pretrained[parameter]

    def _low_rank(
        self,
        linear: str,
        sets: Sequence[tuple[int, ...]],
        held: Mapping[int, TaskWeights],
        biases: Sequence[Tensor | None],
    ) -> list[Delta]:
        """The low-rank change of each set in one linear, folded for the fused kernels."""
        parameter = weight_of(linear)
        changing = [self._changing(parameter, tasks) for tasks in sets]
        several = [tasks for tasks in changing if len(tasks) > 1]
        places = {task: place for place, task in enumerate(sorted({t for tasks in several for t in tasks}))}
        vectors = [self._singular_vectors(held[task], parameter) for task in places]
        factors = iter(core_factors(vectors, [[places[task] for task in tasks] for tasks in several]))
        changes: list[Delta] = []
        small = parameter in self._small
        for tasks, bias in zip(changing, biases, strict=True):
            blocks = tuple(held[task].blocks[parameter] for task in tasks)
            if not tasks:
                changes.append(BaseOnly(bias))
            elif len(tasks) == 1:
                s = held[tasks[0]].singular_values[parameter]
                one = OneTask.of(blocks[0], s, bias, torch.float32 if small else self._dtype)
                changes.append(SmallSides.of(one) if small else one)
            elif self._fused:
                changes.append(SeveralTasks.of(blocks, *next(factors), bias).folded(self._dtype))
            else:
                left, right = next(factors)
                several_tasks = SeveralTasks.of(blocks, left.float(), right.float(), bias)
                changes.append(SmallSides.of(several_tasks) if small else several_tasks)
        return changes

    def _own_weights(
        self,
        linears: Sequence[str],
        tasks: tuple[int, ...],
        held: Mapping[int, TaskWeights],
        vectors: Mapping[str, Tensor],
    ) -> dict[str, Delta]:
        """The change of one set in those linears, each a merged weight of its own where there is a change."""
        changed = self._changed(list(map(weight_of, linears)), tasks)
        weights, deltas = self._merged(changed, [held[task] for task in tasks]), dict[str, Delta]()
        for linear in linears:
            weight, bias = weights.get(weight_of(linear)), self._bias(linear, vectors)
            deltas[linear] = BaseOnly(bias) if weight is None else MaterialisedWeight(weight, bias)
        return deltas

    def _bias(self, linear: str, changed: Mapping[str, Tensor]) -> Tensor | None:
        return changed.get(bias_of(linear), self.pretrained.get(bias_of(linear)))

    def _small_linears(self) -> frozenset[str]:
        """The weights, but for tables of words, whose changes are small sides on a CPU."""
        part = self.architecture.embedding
        tables = set(map(weight_of, part.linears)) if self.architecture.reads_text else set()
        return frozenset(name for name in self.ranks.keys() - tables if is_small(self.forms[name].shape))

    def _changed(self, parameters: Collection[str], tasks: Sequence[int]) -> list[str]:
        return [name for name in parameters if self._is_changed(name, tasks)]

    def _is_changed(self, parameter: str, tasks: Sequence[int]) -> bool:
        if parameter in self.ranks:
            return bool(self._changing(parameter, tasks))
        return any(parameter in self._dense_changes[task] for task in tasks)

    def _changing(self, parameter: str, tasks: Sequence[int]) -> tuple[int, ...]:
        """Those of the tasks that do not leave a parameter with blocks alone."""
        ranks = self.ranks[parameter]
        return tuple(task for task in tasks if ranks[task])

    def _vector_names(self) -> list[str]:
        """Every parameter that is not the weight of a linear."""
        weights = set(map(weight_of, self.architecture.linears))
        return [name for name in self.pretrained if name not in weights]


def _read(
    read_again: Callable[[], TaskChanges],
    placed: Callable[[TaskChanges], TaskWeights],
    right: Mapping[str, Rows],
) -> TaskWeights:
    """A task's weights once more, with the right sides that have stayed in memory."""
    return placed(read_again()).sharing(right)
