"""Makes many task vectors into less, in pure PyTorch.

    vectors = [task_singular_vectors(task_vector(pretrained, finetuned), rank) for finetuned in models]
    merged = merged_parameter(pretrained, vectors)  # TSV-M of one parameter

`formats` says how the change of one task is kept, `methods` (one file a paper) how those of several become
one.
"""

from typing import TYPE_CHECKING

from mass_serve.public_names import public_names

if TYPE_CHECKING:
    from mass_serve.merging.public import *
else:
    __getattr__, __dir__ = public_names(__name__)
