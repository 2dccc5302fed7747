"""A calibration file: what unlabelled images told of the evidence for tasks, as four tensors.

Of K kinds of evidence for T tasks, and C classes, those of all tasks side by side:

    means       [C, K, T]     the mean evidence of each class's images
    covariance  [K, T, K, T]  of the evidence within a class
    images      [C]           how many images of each class there were
    owner       [T, C]        1 where the class is the task's, else 0

All are float64. The tasks, their revisions and their order are in the manifest; what the numbers mean is
`router.calibration`'s affair.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

MEANS = "means"
COVARIANCE = "covariance"
IMAGES = "images"
OWNER = "owner"


def calibration_shapes(kinds: int, tasks: int, classes: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a calibration file."""
    return {
        MEANS: (classes, kinds, tasks),
        COVARIANCE: (kinds, tasks, kinds, tasks),
        IMAGES: (classes,),
        OWNER: (tasks, classes),
    }


def is_calibration(tensors: Mapping[str, Tensor], kinds: int, tasks: int) -> bool:
    """Tells whether these are the tensors of a calibration of so many kinds of evidence and tasks."""
    classes = len(tensors[MEANS]) if MEANS in tensors else 0
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return found == calibration_shapes(kinds, tasks, classes)
