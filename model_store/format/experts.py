"""A task's experts file: singular blocks of the encoder's matrices, dense deltas of everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture
from mass_serve.merging import DenseDelta, TaskChange, ThinDelta
from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.format.block_format_names import BlockDtype, BlockFormat
from mass_serve.model_store.format.block_formats import BLOCK_FORMS, StoredVectors, unpacked
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.factoring import Factoring, Ranks
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.model_store.format.rank_choice import Delta, kept_singular_vectors, norm_of
from mass_serve.model_store.format.rank_rules import BudgetRule, RuleOfSizes
from mass_serve.model_store.format.tensor_files import TensorSpec
from mass_serve.model_store.progress import Progress, silent

# What a task changed of one parameter, as it is stored.
StoredChange = StoredVectors | DenseDelta
ReadParameter = Callable[[str], Tensor]
# From the name of a parameter and what it was before to `finetuned - pretrained`.
ReadChange = Callable[[str, Tensor], Delta]


@dataclass(frozen=True)
class TaskExperts:
    """All changes of one task, in memory."""

    singular_vectors: dict[str, StoredVectors]  # in the task's format
    dense_deltas: dict[str, Tensor]  # float32, of the parameter's shape

    def stored_change(self, name: str) -> StoredChange:
        """Returns the task's change of one parameter, as stored. Raises KeyError for an unknown name."""
        vectors = self.singular_vectors.get(name)
        return DenseDelta(self.dense_deltas[name]) if vectors is None else vectors

    def change(self, name: str) -> TaskChange:
        """Returns the same in floating-point numbers."""
        return _unpacked(self.stored_change(name))

    def leading(self, ranks: Ranks) -> TaskExperts:
        """Returns the changes with as many of the leading triplets of each matrix."""
        vectors = {name: own.leading(ranks[name]) for name, own in self.singular_vectors.items()}
        return replace(self, singular_vectors=vectors)


@dataclass(frozen=True)
class ExpertLayout:
    """The layout of experts files: of a store's new tasks, or of one task (`of_entry`)."""

    factoring: Factoring
    block_dtype: BlockDtype  # of blocks whose task says no format
    own_format: BlockFormat | None = None  # None: that

    @classmethod
    def of(cls, manifest: Manifest) -> ExpertLayout:
        """The layout that a manifest prescribes for a task that is added."""
        return cls(manifest.factoring, manifest.block_dtype, manifest.block_format)

    def of_format(self, own: BlockFormat | None) -> ExpertLayout:
        """The layout in another format; None: blocks of `block_dtype`."""
        return replace(self, own_format=None if own == self.block_dtype else own)

    def of_entry(self, task: TaskEntry) -> ExpertLayout:
        """The layout of the experts file of a task of the store."""
        return self.of_format(task.block_format)

    @property
    def block_format(self) -> BlockFormat:
        """The format of the blocks."""
        return self.own_format or self.block_dtype

    @property
    def packed_tensors(self) -> frozenset[str]:
        """The names of the tensors that hold whole numbers."""
        specs = self.tensor_specs(dict.fromkeys(self.factoring.shapes, 1))
        return frozenset(name for name, spec in specs.items() if spec.dtype == torch.int8)

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
        return self.factoring.ranks_of(task.ranks)

    def tensor_specs(self, ranks: Ranks) -> dict[str, TensorSpec]:
        """The tensors of an experts file: those of the format for blocks, or `NAME.delta`."""
        form, factored = BLOCK_FORMS[self.block_format], self.factoring.shapes
        specs: dict[str, TensorSpec] = {}
        for name, shape in self.backbone.parameter_shapes().items():
            if name in ranks:
                specs |= form.specs(name, factored[name], ranks[name])
            else:
                specs[f"{name}.delta"] = TensorSpec(torch.float32, shape)
        return specs

    @property
    def triplet_bytes(self) -> dict[str, int]:
        """What one triplet of each factored parameter takes in an experts file."""
        form = BLOCK_FORMS[self.block_format]
        return {name: form.triplet_bytes(shape) for name, shape in self.factoring.shapes.items()}

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

    def kept(self, vectors: StoredVectors) -> StoredVectors:
        """The same singular vectors in this format, whichever they were in before."""
        return BLOCK_FORMS[self.block_format].kept(vectors)

    def change_tensors(self, name: str, change: StoredChange) -> dict[str, Tensor]:
        """The tensors of an experts file that hold a task's change of one parameter, in this format."""
        if isinstance(change, DenseDelta):
            return {f"{name}.delta": change.values}
        return BLOCK_FORMS[self.block_format].tensors(name, self.kept(change))

    def experts_tensors(self, experts: TaskExperts) -> dict[str, Tensor]:
        """The tensors of a task's experts file."""
        tensors: dict[str, Tensor] = {}
        for name in self.backbone.parameter_shapes():
            tensors |= self.change_tensors(name, experts.stored_change(name))
        return tensors

    def read_stored(self, name: str, read: ReadParameter) -> StoredChange:
        """Reads a task's change of one parameter from the tensors of its experts file."""
        if name not in self.factoring.shapes:
            return DenseDelta(read(f"{name}.delta"))
        return BLOCK_FORMS[self.block_format].read(name, self.factoring.shapes[name], read)

    def read_change(self, name: str, read: ReadParameter) -> TaskChange:
        """Reads the same in floating-point numbers."""
        return _unpacked(self.read_stored(name, read))


def _unpacked(change: StoredChange) -> TaskChange:
    return change if isinstance(change, DenseDelta) else unpacked(change)


@dataclass(frozen=True)
class FactoredTask:
    """Holds what building makes of a task."""

    tensors: dict[str, Tensor]  # of its experts file
    ranks: dict[str, int]  # of every factored parameter, in forward order
    # Before any rounding: sum of s^2 over ||delta||_F^2 of all factored parameters; 1 where nothing changed.
    energy_kept: float


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

    def factor(name: str) -> tuple[dict[str, Tensor], Tensor | None, float]:
        before = pretrained(name)
        delta = change(name, before)
        if name not in layout.factoring.shapes:
            dense = delta.dense() if isinstance(delta, ThinDelta) else delta
            return layout.change_tensors(name, DenseDelta(dense)), None, 0.0
        cost = layout.triplet_bytes[name]
        found = kept_singular_vectors(before, delta, layout.factoring.rule, cost, exact)
        return layout.change_tensors(name, found), found.s, norm_of(delta) ** 2

    progress(stage, 0, len(names))
    for done, (name, (changed, s, of_change)) in enumerate(
        zip(names, side_by_side(factor, names), strict=True), 1
    ):
        if s is not None:
            ranks[name] = len(s)
            kept, energy = kept + norm_of(s.float()) ** 2, energy + of_change
        tensors |= changed
        progress(stage, done, len(names))
    # Rounding may make the kept more than there was.
    return FactoredTask(tensors, ranks, min(1.0, kept / energy) if energy else 1.0)


def experts_from_tensors(layout: ExpertLayout, tensors: dict[str, Tensor]) -> TaskExperts:
    """Makes a task's changes from all tensors of its experts file."""
    changes = {
        name: layout.read_stored(name, tensors.__getitem__) for name in layout.backbone.parameter_shapes()
    }
    return TaskExperts(
        {name: change for name, change in changes.items() if not isinstance(change, DenseDelta)},
        {name: change.values for name, change in changes.items() if isinstance(change, DenseDelta)},
    )
