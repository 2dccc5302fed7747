"""A task's experts file: singular blocks of the encoder's matrices, dense deltas of everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture
from mass_serve.merging import DenseDelta, TaskChange, TaskSingularVectors, ThinDelta
from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.factoring import Factoring, Ranks
from mass_serve.model_store.format.manifest import BlockDtype, Manifest
from mass_serve.model_store.format.rank_choice import Delta, kept_singular_vectors, norm_of
from mass_serve.model_store.format.rank_rules import BudgetRule
from mass_serve.model_store.format.tensor_files import TensorSpec
from mass_serve.model_store.progress import Progress, silent

BLOCK_DTYPES: dict[BlockDtype, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}

ReadParameter = Callable[[str], Tensor]
# From the name of a parameter and what it was before to `finetuned - pretrained`.
ReadChange = Callable[[str, Tensor], Delta]


@dataclass(frozen=True)
class TaskExperts:
    """All changes of one task, in memory."""

    singular_vectors: dict[str, TaskSingularVectors]  # u, vh in the store's block dtype, s float32
    dense_deltas: dict[str, Tensor]  # float32, of the parameter's shape

    def change(self, name: str) -> TaskChange:
        """Returns the task's change of one parameter. Raises KeyError for an unknown name."""
        vectors = self.singular_vectors.get(name)
        return DenseDelta(self.dense_deltas[name]) if vectors is None else vectors


@dataclass(frozen=True)
class ExpertLayout:
    """The layout of every experts file of one store."""

    factoring: Factoring
    block_dtype: BlockDtype

    @classmethod
    def of(cls, manifest: Manifest) -> ExpertLayout:
        """The layout that a manifest prescribes."""
        return cls(manifest.factoring, manifest.block_dtype)

    @property
    def backbone(self) -> Architecture:
        """The encoder."""
        return self.factoring.architecture

    def of_task(self, distance: float) -> ExpertLayout:
        """The layout by which a task at that distance from its base is factored."""
        rule = self.factoring.rule
        if not isinstance(rule, BudgetRule):
            return self
        return replace(self, factoring=replace(self.factoring, rule=rule.of_task(distance)))

    def ranks_of(self, task: TaskEntry) -> Ranks:
        """R of every factored parameter of a task, in forward order."""
        ranks = task.ranks or self.factoring.prescribed()
        assert ranks is not None  # a manifest without is none
        return ranks

    def tensor_specs(self, ranks: Ranks) -> dict[str, TensorSpec]:
        """The tensors of an experts file: `NAME.u`, `NAME.s`, `NAME.vh` or `NAME.delta`."""
        block = BLOCK_DTYPES[self.block_dtype]
        specs = {}
        for name, shape in self.backbone.parameter_shapes().items():
            if name not in ranks:
                specs[f"{name}.delta"] = TensorSpec(torch.float32, shape)
                continue
            specs[f"{name}.u"] = TensorSpec(block, (shape[0], ranks[name]))
            specs[f"{name}.s"] = TensorSpec(torch.float32, (ranks[name],))
            specs[f"{name}.vh"] = TensorSpec(block, (ranks[name], shape[1]))
        return specs

    def read_change(self, name: str, read: ReadParameter) -> TaskChange:
        """Reads a task's change of one parameter from the tensors of its experts file."""
        if name not in self.factoring.shapes:
            return DenseDelta(read(f"{name}.delta"))
        return TaskSingularVectors(read(f"{name}.u"), read(f"{name}.s"), read(f"{name}.vh"))


@dataclass(frozen=True)
class FactoredTask:
    """Holds what building makes of a task."""

    tensors: dict[str, Tensor]  # of its experts file
    ranks: dict[str, int]  # of every factored parameter, in forward order
    energy_kept: float  # sum of s^2 over ||delta||_F^2 of all factored parameters; 1 where nothing changed


def factor_task(
    layout: ExpertLayout,
    pretrained: ReadParameter,
    change: ReadChange,
    stage: str,
    progress: Progress = silent,
    exact: bool = False,
) -> FactoredTask:
    """Computes the tensors of a task's experts file, and what they keep of its change.

    Both models are read one parameter at a time on each thread, so neither is in memory as a whole. `exact`
    decomposes whole matrices, and not only their leading part (`merging.formats.leading`).
    """
    names = list(layout.backbone.parameter_shapes())
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    kept = energy = 0.0

    def factor(name: str) -> tuple[dict[str, Tensor], float]:
        before = pretrained(name)
        delta = change(name, before)
        return _change_tensors(layout, name, before, delta, exact), norm_of(delta) ** 2

    progress(stage, 0, len(names))
    for done, (name, (changed, of_change)) in enumerate(
        zip(names, side_by_side(factor, names), strict=True), 1
    ):
        if (s := changed.get(f"{name}.s")) is not None:
            ranks[name] = len(s)
            kept, energy = kept + norm_of(s) ** 2, energy + of_change
        tensors |= changed
        progress(stage, done, len(names))
    # Rounding may make the kept more than there was.
    return FactoredTask(tensors, ranks, min(1.0, kept / energy) if energy else 1.0)


def _change_tensors(
    layout: ExpertLayout, name: str, before: Tensor, delta: Delta, exact: bool
) -> dict[str, Tensor]:
    if name not in layout.factoring.shapes:
        return {f"{name}.delta": delta.dense() if isinstance(delta, ThinDelta) else delta}
    block = BLOCK_DTYPES[layout.block_dtype]
    vectors = kept_singular_vectors(before, delta, layout.factoring.rule, block.itemsize, exact)
    return {
        f"{name}.u": vectors.u.to(block),
        f"{name}.s": vectors.s.float(),
        f"{name}.vh": vectors.vh.to(block),
    }


def experts_from_tensors(layout: ExpertLayout, tensors: dict[str, Tensor]) -> TaskExperts:
    """Makes a task's changes from all tensors of its experts file."""
    changes = {
        name: layout.read_change(name, tensors.__getitem__) for name in layout.backbone.parameter_shapes()
    }
    return TaskExperts(
        {name: change for name, change in changes.items() if isinstance(change, TaskSingularVectors)},
        {name: change.values for name, change in changes.items() if isinstance(change, DenseDelta)},
    )
