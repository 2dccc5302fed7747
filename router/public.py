"""What `mass_serve.router` has for other folders."""

from mass_serve.router.calibration import LEAST_IMAGES, Calibration, CalibrationFit
from mass_serve.router.combination import Combination, fit_combination
from mass_serve.router.energies import DrawnEnergies, EnergyEvidence
from mass_serve.router.evidence import Evidence, EvidenceRouter, after_second_passes, evidence_kinds
from mass_serve.router.head_scores import HeadGeometry
from mass_serve.router.modes import (
    FARTHEST_RESUMED,
    MAX_SECOND_PASSES,
    MODE_NAMES,
    MODES,
    PAPER,
    ModeName,
    early_stop,
    mode_named,
)
from mass_serve.router.parts import CONTRADICTION, Parts, parts_of
from mass_serve.router.prior import Prior, Remembered
from mass_serve.router.projection import SubspaceRouter, TaskSubspaces, explained_share
from mass_serve.router.streams import StreamEvidence
from mass_serve.router.subspaces import LinearSubspaces, is_of_low_rank, own_rank

__all__ = [
    "CONTRADICTION",
    "FARTHEST_RESUMED",
    "LEAST_IMAGES",
    "MAX_SECOND_PASSES",
    "MODES",
    "MODE_NAMES",
    "PAPER",
    "Calibration",
    "CalibrationFit",
    "Combination",
    "DrawnEnergies",
    "EnergyEvidence",
    "Evidence",
    "EvidenceRouter",
    "HeadGeometry",
    "LinearSubspaces",
    "ModeName",
    "Parts",
    "Prior",
    "Remembered",
    "StreamEvidence",
    "SubspaceRouter",
    "TaskSubspaces",
    "after_second_passes",
    "early_stop",
    "evidence_kinds",
    "explained_share",
    "fit_combination",
    "is_of_low_rank",
    "mode_named",
    "own_rank",
    "parts_of",
]
