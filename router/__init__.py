"""Which tasks an image belongs to, decided from one feature without any training data.

`SubspaceRouter` measures how far a feature lies outside each task's subspace; `select` turns the
distances into an expert set.
"""

from router.config import RouterConfig
from router.projection import SubspaceRouter, orthonormal_rows
from router.selection import routing_coefficients, select_expert_sets

__all__ = [
    "RouterConfig",
    "SubspaceRouter",
    "orthonormal_rows",
    "routing_coefficients",
    "select_expert_sets",
]
