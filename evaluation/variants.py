"""The same store with fewer tasks or another rank, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from mass_serve.backbone import ExpertBank
from mass_serve.engine.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import LoadedStore, first_pass_names, runs_on_merged_base
from mass_serve.evaluation.changes import TaskChanges
from mass_serve.merging import TaskSingularVectors, task_singular_vectors
from mass_serve.router import PAPER, ModeName


@dataclass(frozen=True)
class Variants:
    """Engines of variants of one loaded store."""

    loaded: LoadedStore
    execution: Execution
    set_cache_bytes: int

    def engine(self, mode: ModeName | None = None) -> Engine:
        """An engine of the store as it is, in another mode if one is given."""
        loaded = self.loaded
        on_merged_base = runs_on_merged_base(loaded.router, PAPER)
        if mode == PAPER and on_merged_base and not loaded.first_pass_nbytes:
            names = first_pass_names(loaded.architecture, loaded.bank, loaded.router.layer, PAPER)
            merged = loaded.bank.merged_parameters(names, range(loaded.bank.num_tasks))
            loaded = replace(loaded, first_pass=merged)
        return Engine(replace(loaded, mode=mode or loaded.mode), self.execution, self.set_cache_bytes)

    def of_first_tasks(self, count: int) -> Engine:
        """An engine of the first `count` tasks, at the rank that they have in the store."""
        return self._engine(_with_tasks(self.loaded.bank, range(count)), count)

    def of_rank(self, share: float, changes: TaskChanges) -> Engine:
        """An engine of all tasks at `share` times the store's rank; above 1 from what fine-tuning changed."""
        bank = self.loaded.bank
        names = [head.entry.name for head in self.loaded.heads]
        result = ExpertBank(bank.architecture, bank.pretrained, bank.num_tasks)
        for task, name in enumerate(names):
            vectors = {}
            for linear, stored in _vectors_of(bank, task).items():
                full = min(bank.pretrained[linear].shape)
                rank = min(full, max(1, int(stored.rank * share)))
                if share > 1:
                    vectors[linear] = task_singular_vectors(changes.change(name, linear), rank)
                else:
                    vectors[linear] = TaskSingularVectors(
                        stored.u[:, :rank], stored.s[:rank], stored.vh[:rank]
                    )
            result.set_task(task, vectors, _dense_deltas_of(bank, task))
        return self._engine(result, bank.num_tasks)

    def _engine(self, bank: ExpertBank, tasks: int) -> Engine:
        """An engine of the first `tasks` tasks as `bank` has them, its first pass merged of these alone."""
        loaded = self.loaded
        first_pass = {
            name: weight if weight is loaded.pretrained[name] else bank.merged(name, range(tasks))
            for name, weight in loaded.first_pass.items()
        }
        # What images told of the evidence is not true of another rank or other tasks.
        changed = replace(
            loaded, bank=bank, heads=loaded.heads[:tasks], first_pass=first_pass, calibration=None
        )
        return Engine(changed, self.execution, self.set_cache_bytes)


def _with_tasks(bank: ExpertBank, tasks: Sequence[int]) -> ExpertBank:
    """A bank of some of the tasks, in that order."""
    result = ExpertBank(bank.architecture, bank.pretrained, len(tasks))
    for place, task in enumerate(tasks):
        result.set_task(place, _vectors_of(bank, task), _dense_deltas_of(bank, task))
    return result


def _vectors_of(bank: ExpertBank, task: int) -> dict[str, TaskSingularVectors]:
    """A task's singular vectors by parameter."""
    return {
        name: TaskSingularVectors(blocks.u[task], bank.singular_values[name][task], blocks.vh[task])
        for name, blocks in bank.blocks.items()
    }


def _dense_deltas_of(bank: ExpertBank, task: int) -> dict[str, Tensor]:
    """A task's dense deltas by parameter."""
    return {name: deltas[task] for name, deltas in bank.dense_deltas.items()}
