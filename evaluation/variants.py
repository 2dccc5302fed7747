"""The same store with fewer tasks or another rank, in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from torch import Tensor

from mass_serve.backbone import ExpertBank, FormedParameters, Parameters, forms_of
from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import first_pass_names, placed_parameters, runs_on_merged_base
from mass_serve.engine.options import FirstPassDtype
from mass_serve.evaluation.changes import TaskChanges
from mass_serve.merging import TaskSingularVectors, task_singular_vectors
from mass_serve.router import PAPER, ModeName


@dataclass(frozen=True)
class Variants:
    """Engines of variants of one loaded store."""

    loaded: LoadedStore
    execution: Execution
    set_cache_bytes: int
    # Of the store, where a method of its own merged it; else it is rebuilt from the blocks.
    merged_base: Mapping[str, Tensor] | None = None
    first_pass_dtype: FirstPassDtype = "same"

    def engine(self, mode: ModeName | None = None) -> Engine:
        """An engine of the store as it is, in another mode if one is given."""
        if mode is None:
            return self._as_loaded
        loaded = self.loaded
        on_merged_base = runs_on_merged_base(loaded.router, PAPER)
        if mode == PAPER and on_merged_base and not loaded.first_pass_nbytes:
            names = first_pass_names(loaded.architecture, loaded.bank, loaded.router.layer, PAPER)
            loaded = replace(loaded, first_pass=self._merged_base(names))
        return self._engine_of(replace(loaded, mode=mode), self._as_loaded)

    @cached_property
    def _as_loaded(self) -> Engine:
        """The engine whose first-pass weights others share where theirs are the same: these are made once."""
        return self._engine_of(self.loaded)

    def _engine_of(self, loaded: LoadedStore, previous: Engine | None = None) -> Engine:
        return Engine(
            loaded,
            self.execution,
            self.set_cache_bytes,
            first_pass_dtype=self.first_pass_dtype,
            previous=previous,
        )

    def _merged_base(self, names: Collection[str]) -> Parameters:
        bank = self.loaded.bank
        if self.merged_base is None:
            return self._placed(bank.merged_parameters(names, range(bank.num_tasks)))
        return self._placed({name: self.merged_base[name] for name in names})

    def _placed(self, parameters: Mapping[str, Tensor]) -> Parameters:
        """Parameters in the form in which a server of this store would have them."""
        loaded = self.loaded
        return placed_parameters(parameters.items(), loaded.architecture, loaded.device, loaded.dtype)

    def of_first_tasks(self, count: int) -> Engine:
        """An engine of the first `count` tasks, at the rank that they have in the store."""
        bank = self.loaded.bank
        result = ExpertBank(bank.architecture, bank.pretrained, bank.task_ranks[:count])
        result.take_tasks(bank, {task: task for task in range(count)})
        return self._engine(result, count)

    def of_rank(self, share: float, changes: TaskChanges) -> Engine:
        """An engine of all tasks at `share` times the store's rank; above 1 from what fine-tuning changed."""
        bank = self.loaded.bank
        ranks = [
            {name: _rank_at(share, rank, bank.forms[name].shape) for name, rank in of_task.items()}
            for of_task in bank.task_ranks
        ]
        result = ExpertBank(bank.architecture, bank.pretrained, ranks)
        for task, head in enumerate(self.loaded.heads):
            vectors = {}
            for parameter in bank.ranks:
                (stored,) = bank.singular_vectors(parameter, [task])
                change = partial(changes.change, head.entry.name, parameter)
                vectors[parameter] = _of_rank(stored, ranks[task][parameter], change)
            dense = [name for name in bank.pretrained if name not in bank.ranks]
            result.set_task(task, vectors, {name: bank.dense_delta(name, task) for name in dense})
        return self._engine(result, bank.num_tasks)

    def _engine(self, bank: ExpertBank, tasks: int) -> Engine:
        """An engine of the first `tasks` tasks as `bank` has them, its first pass merged of these alone."""
        loaded = self.loaded
        first_pass, pretrained = forms_of(loaded.first_pass), forms_of(loaded.pretrained)
        merged = [name for name, weight in first_pass.items() if weight is not pretrained[name]]
        own = forms_of(self._placed(bank.merged_parameters(merged, range(tasks))))
        # What inputs told of the evidence is not true of another rank or other tasks.
        changed = replace(
            loaded,
            bank=bank,
            heads=loaded.heads[:tasks],
            first_pass=FormedParameters({**first_pass, **own}),
            calibration=None,
        )
        return self._engine_of(changed, self._as_loaded)


def _rank_at(share: float, stored: int, shape: Sequence[int]) -> int:
    """The rank at `share` times the stored one; a task that left a matrix alone still does."""
    return min(*shape, max(1, int(stored * share))) if stored else 0


def _of_rank(stored: TaskSingularVectors, rank: int, change: Callable[[], Tensor]) -> TaskSingularVectors:
    """The singular vectors of one matrix at another rank, above the stored one computed from its `change`."""
    if rank > stored.rank:
        return task_singular_vectors(change(), rank)
    return TaskSingularVectors(stored.u[:, :rank], stored.s[:rank], stored.vh[:rank])
