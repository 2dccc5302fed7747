"""How close a store comes to its individual models, on images or texts whose task and class are known."""

from typing import TYPE_CHECKING

from mass_serve.kernels import matrix_libraries  # noqa: F401 - before anything that could make a product
from mass_serve.public_names import public_names

if TYPE_CHECKING:
    from mass_serve.evaluation.public import *
else:
    __getattr__, __dir__ = public_names(__name__)
