"""The shared transformer and the experts folded into it, with torch alone.

`architecture` defines an encoder; `one_pass.run` is its forward pass, part by part (`parts`), over weights in
one of several forms (`weights`); `ExpertBank` holds what every task changed; `passes_for` gives a store's
passes in the form that fits the device.
"""

from typing import TYPE_CHECKING

from mass_serve.kernels import matrix_libraries  # noqa: F401 - before anything that could make a product
from mass_serve.public_names import public_names

if TYPE_CHECKING:
    from mass_serve.backbone.public import *
else:
    __getattr__, __dir__ = public_names(__name__)
