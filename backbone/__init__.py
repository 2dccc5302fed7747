"""The shared vision transformer and the experts folded into it.

`vit` is the forward pass, written once against `EncoderWeights`; `DenseWeights` and `SegmentedWeights`
are the plain and the mixed-batch form of it; `ExpertBank` holds what every task changed; `passes_for` gives
the two passes in the form that fits the device.
"""

from mass_serve.backbone.config import EncoderConfig
from mass_serve.backbone.expert_bank import ExpertBank, ExpertSet
from mass_serve.backbone.heads import ClassificationHead
from mass_serve.backbone.linear import DenseWeights, EncoderWeights, SegmentedWeights
from mass_serve.backbone.passes import Passes, passes_for
from mass_serve.backbone.vit import (
    early_pass,
    encode,
    encode_from,
    first_pass,
    first_pass_parameters,
    patchify,
)

__all__ = [
    "ClassificationHead",
    "DenseWeights",
    "EncoderConfig",
    "EncoderWeights",
    "ExpertBank",
    "ExpertSet",
    "Passes",
    "SegmentedWeights",
    "early_pass",
    "encode",
    "encode_from",
    "first_pass",
    "first_pass_parameters",
    "passes_for",
    "patchify",
]
