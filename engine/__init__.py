"""The whole answer without a server: images in, answers out. It imports no web framework.

`Engine.load(store).classify(images)` is all that most callers need; `inputs` turns files into what it takes,
and `protocol` is all that a service knows of an engine.
"""

from typing import TYPE_CHECKING

from mass_serve.kernels import matrix_libraries  # noqa: F401 - before anything that could make a product
from mass_serve.public_names import public_names

if TYPE_CHECKING:
    from mass_serve.engine.public import *
else:
    __getattr__, __dir__ = public_names(__name__)
