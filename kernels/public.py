"""What `mass_serve.kernels` has for other folders."""

from mass_serve.kernels.embedding import segmented_added_rows, segmented_embedding
from mass_serve.kernels.energies import TaskDirections, subspace_energies, widened
from mass_serve.kernels.layer_norm import segmented_layer_norm
from mass_serve.kernels.low_rank import (
    BaseOnly,
    Delta,
    FoldedSides,
    MaterialisedWeight,
    OneTask,
    SeveralTasks,
    SmallSides,
    TaskBlock,
    linear,
    segmented_linear,
)
from mass_serve.kernels.packed_rows import PackedRows, Rows, directions_of
from mass_serve.kernels.positions import segmented_positions
from mass_serve.kernels.quantised import QuantisedWeight
from mass_serve.kernels.reordered import ReorderedWeight
from mass_serve.kernels.residual import subspace_residuals
from mass_serve.kernels.segments import group_by_expert_set
from mass_serve.kernels.weights import Table, Weight

__all__ = [
    "BaseOnly",
    "Delta",
    "FoldedSides",
    "MaterialisedWeight",
    "OneTask",
    "PackedRows",
    "QuantisedWeight",
    "ReorderedWeight",
    "Rows",
    "SeveralTasks",
    "SmallSides",
    "Table",
    "TaskBlock",
    "TaskDirections",
    "Weight",
    "directions_of",
    "group_by_expert_set",
    "linear",
    "segmented_added_rows",
    "segmented_embedding",
    "segmented_layer_norm",
    "segmented_linear",
    "segmented_positions",
    "subspace_energies",
    "subspace_residuals",
    "widened",
]
