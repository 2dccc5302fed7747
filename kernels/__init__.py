"""Arithmetic on mixed batches: products whose rows belong to segments with different experts.

Each operation has a folder of its own: `reference.py` is plain PyTorch and defines it, `fused.py` is the same
in Triton kernels, and `backend.py` says which of them runs: the fused one on CUDA, the reference elsewhere.
`records.py` is the one layout that the host and the fused kernels share.
"""

from typing import TYPE_CHECKING

from mass_serve.kernels import matrix_libraries  # noqa: F401 - before anything that could make a product
from mass_serve.public_names import public_names

if TYPE_CHECKING:
    from mass_serve.kernels.public import *
else:
    __getattr__, __dir__ = public_names(__name__)
