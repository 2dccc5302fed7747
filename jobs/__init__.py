"""Many inputs through an engine without a server: streamed, in full batches, killed and gone on with.

`run_job` is what `mass-serve batch` does; `answer_all` is the same without a folder of results. `journal` is
what any long run can keep to be able to go on.
"""

from typing import TYPE_CHECKING

from mass_serve.kernels import matrix_libraries  # noqa: F401 - before anything that could make a product
from mass_serve.public_names import public_names

if TYPE_CHECKING:
    from mass_serve.jobs.public import *
else:
    __getattr__, __dir__ = public_names(__name__)
