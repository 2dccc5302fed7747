"""The shared vision transformer and the experts folded into it.

`vit` is the forward pass, written once against `EncoderWeights`; `DenseWeights` and `SegmentedWeights`
are the plain and the mixed-batch form of it; `ExpertBank` holds what every task changed; `passes_for` gives
the two passes in the form that fits the device.
"""

from backbone.config import EncoderConfig
from backbone.expert_bank import ExpertBank, ExpertSet
from backbone.heads import ClassificationHead
from backbone.linear import DenseWeights, EncoderWeights, SegmentedWeights
from backbone.passes import Passes, passes_for
from backbone.vit import encode, first_pass, first_pass_parameters, patchify

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
