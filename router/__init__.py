"""Which tasks an image belongs to, decided without any training data.

`SubspaceRouter` is the paper's: how far a feature lies outside each task's subspace, and from that an expert
set. `EvidenceRouter` adds two further pieces of evidence; the `MODES` say how much of it an image gets.
"""

from router.config import RouterConfig
from router.evidence import Evidence, EvidenceRouter, early_linears
from router.modes import MODES, PAPER, Mode, early_stop
from router.projection import SubspaceRouter, explained_share, orthonormal_rows
from router.selection import routing_coefficients, select_expert_sets

__all__ = [
    "MODES",
    "PAPER",
    "Evidence",
    "EvidenceRouter",
    "Mode",
    "RouterConfig",
    "SubspaceRouter",
    "early_linears",
    "early_stop",
    "explained_share",
    "orthonormal_rows",
    "routing_coefficients",
    "select_expert_sets",
]
