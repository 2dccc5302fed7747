"""What `mass_serve.backbone` has for other folders."""

from mass_serve.backbone.architecture import (
    Architecture,
    AttentionPooling,
    Block,
    PatchEmbedding,
    Pooling,
    RotaryAttention,
    WordEmbedding,
    weight_of,
)
from mass_serve.backbone.expert_bank import ExpertBank
from mass_serve.backbone.expert_set import ExpertSet
from mass_serve.backbone.heads import ClassificationHead, HiddenLayer
from mass_serve.backbone.labelling import MULTI_CLASS, Labelling, MultiClass, MultiLabel
from mass_serve.backbone.one_pass import Feature, PassResult, Probe, run
from mass_serve.backbone.packed import Batch, Packed, joined, lengths_of
from mass_serve.backbone.parameters import (
    FormedParameters,
    Parameters,
    forms_of,
    named,
    nbytes_of,
    quantised,
    reordered,
    with_quantised_linears,
)
from mass_serve.backbone.parts.patch_embedding import patchify
from mass_serve.backbone.passes import Passes, passes_for
from mass_serve.backbone.resident_tasks import ResidentTasks
from mass_serve.backbone.task_weights import TaskChanges
from mass_serve.backbone.weights.dense import DenseWeights

__all__ = [
    "MULTI_CLASS",
    "Architecture",
    "AttentionPooling",
    "Batch",
    "Block",
    "ClassificationHead",
    "DenseWeights",
    "ExpertBank",
    "ExpertSet",
    "Feature",
    "FormedParameters",
    "HiddenLayer",
    "Labelling",
    "MultiClass",
    "MultiLabel",
    "Packed",
    "Parameters",
    "PassResult",
    "Passes",
    "PatchEmbedding",
    "Pooling",
    "Probe",
    "ResidentTasks",
    "RotaryAttention",
    "TaskChanges",
    "WordEmbedding",
    "forms_of",
    "joined",
    "lengths_of",
    "named",
    "nbytes_of",
    "passes_for",
    "patchify",
    "quantised",
    "reordered",
    "run",
    "weight_of",
    "with_quantised_linears",
]
