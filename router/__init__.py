"""Which tasks an image belongs to, decided without any training data.

`SubspaceRouter` is the paper's: how far a feature lies outside each task's subspace, and from that an expert
set. `EvidenceRouter` adds two further kinds of evidence; the `MODES` say how much of it an image gets.
"""

from mass_serve.router.calibration import LEAST_IMAGES, Calibration, CalibrationFit
from mass_serve.router.config import RouterConfig
from mass_serve.router.evidence import Evidence, EvidenceRouter, HeadShape, early_linears, evidence_kinds
from mass_serve.router.modes import MODE_NAMES, MODES, PAPER, Mode, ModeName, early_stop
from mass_serve.router.projection import SubspaceRouter, explained_share, orthonormal_rows
from mass_serve.router.selection import routing_coefficients, select_expert_sets

__all__ = [
    "LEAST_IMAGES",
    "MODES",
    "MODE_NAMES",
    "PAPER",
    "Calibration",
    "CalibrationFit",
    "Evidence",
    "EvidenceRouter",
    "HeadShape",
    "Mode",
    "ModeName",
    "RouterConfig",
    "SubspaceRouter",
    "early_linears",
    "early_stop",
    "evidence_kinds",
    "explained_share",
    "orthonormal_rows",
    "routing_coefficients",
    "select_expert_sets",
]
