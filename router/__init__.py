"""Which tasks an image belongs to, told from tensors alone, without any training data.

`SubspaceRouter` is the paper's: how far a feature lies outside each task's subspace, and from that an expert
set. `EvidenceRouter` adds two further kinds of evidence; the `MODES` say how much of it an image gets.
"""

from typing import TYPE_CHECKING

from mass_serve.kernels import matrix_libraries  # noqa: F401 - before anything that could make a product
from mass_serve.public_names import public_names

if TYPE_CHECKING:
    from mass_serve.router.public import *
else:
    __getattr__, __dir__ = public_names(__name__)
