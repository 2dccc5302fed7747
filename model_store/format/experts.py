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
from mass_serve.model_store.format.rank_rules import BudgetRule, RuleOfSizes, triplet_bytes
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

    def leading(self, ranks: Ranks) -> TaskExperts:
        """Returns the changes with as many of the leading triplets of each matrix."""
        vectors = {name: own.leading(ranks[name]) for name, own in self.singular_vectors.items()}
        return replace(self, singular_vectors=vectors)


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

    @property
    def triplet_bytes(self) -> dict[str, int]:
        """What one triplet of each factored parameter takes in an experts file."""
        item = BLOCK_DTYPES[self.block_dtype].itemsize
        return {name: triplet_bytes(shape, item) for name, shape in self.factoring.shapes.items()}

    def kept_ranks(self, experts: TaskExperts) -> dict[str, int]:
        """R of every factored parameter when the store's rule is applied to what is kept of a task."""
        rule, costs = self.factoring.rule, self.triplet_bytes
        ranks = {}
        for name, shape in self.factoring.shapes.items():
            s = experts.singular_vectors[name].s
            if isinstance(rule, RuleOfSizes):
                ranks[name] = min(len(s), rule.prescribed(shape))
            else:
                ranks[name] = rule.chosen(s.double().square(), costs[name])
        return ranks

    def change_tensors(self, name: str, change: TaskChange) -> dict[str, Tensor]:
        """The tensors of an experts file that hold a task's change of one parameter."""
        if isinstance(change, DenseDelta):
            return {f"{name}.delta": change.values}
        return {f"{name}.u": change.u, f"{name}.s": change.s, f"{name}.vh": change.vh}

    def experts_tensors(self, experts: TaskExperts) -> dict[str, Tensor]:
        """The tensors of a task's experts file."""
        tensors: dict[str, Tensor] = {}
        for name in self.backbone.parameter_shapes():
            tensors |= self.change_tensors(name, experts.change(name))
        return tensors

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
        dense = delta.dense() if isinstance(delta, ThinDelta) else delta
        return layout.change_tensors(name, DenseDelta(dense))
    block = BLOCK_DTYPES[layout.block_dtype]
    found = kept_singular_vectors(before, delta, layout.factoring.rule, block.itemsize, exact)
    vectors = TaskSingularVectors(found.u.to(block), found.s.float(), found.vh.to(block))
    return layout.change_tensors(name, vectors)


def experts_from_tensors(layout: ExpertLayout, tensors: dict[str, Tensor]) -> TaskExperts:
    """Makes a task's changes from all tensors of its experts file."""
    changes = {
        name: layout.read_change(name, tensors.__getitem__) for name in layout.backbone.parameter_shapes()
    }
    return TaskExperts(
        {name: change for name, change in changes.items() if isinstance(change, TaskSingularVectors)},
        {name: change.values for name, change in changes.items() if isinstance(change, DenseDelta)},
    )
