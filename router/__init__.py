"""Which tasks an image belongs to, decided without any training data.

`SubspaceRouter` is the paper's: how far a feature lies outside each task's subspace, and from that an expert
set. `EvidenceRouter` adds two further kinds of evidence; the `MODES` say how much of it an image gets.
"""

from router.calibration import LEAST_IMAGES, Calibration, CalibrationFit
from router.config import RouterConfig
from router.evidence import Evidence, EvidenceRouter, HeadShape, early_linears, evidence_kinds
from router.modes import MODES, PAPER, Mode, early_stop
from router.projection import SubspaceRouter, explained_share, orthonormal_rows
from router.selection import routing_coefficients, select_expert_sets

__all__ = [
    "LEAST_IMAGES",
    "MODES",
    "PAPER",
    "Calibration",
    "CalibrationFit",
    "Evidence",
    "EvidenceRouter",
    "HeadShape",
    "Mode",
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
