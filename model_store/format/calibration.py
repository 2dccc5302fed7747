"""A calibration file: what images told of the evidence for tasks, as four tensors, or five.

Of K kinds of evidence for T tasks, and C classes, those of all tasks side by side:

    means       [C, K, T]       the mean evidence of each class's images
    covariance  [K, T, K, T]    of the evidence within a class
    images      [C]             how many images of each class there were
    owner       [T, C]          1 where the class is the task's, else 0
    weights     [2, 1 + K + T]  how much all this counts beside early evidence, and beside the whole

The last is there where it was known which task each image is of. All are float64. The tasks, their revisions
and their order are in the manifest; what the numbers mean is the affair of `router.calibration` and
`router.combination`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

MEANS = "means"
COVARIANCE = "covariance"
IMAGES = "images"
OWNER = "owner"
WEIGHTS = "weights"


def calibration_shapes(kinds: int, tasks: int, classes: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a calibration file."""
    return {
        MEANS: (classes, kinds, tasks),
        COVARIANCE: (kinds, tasks, kinds, tasks),
        IMAGES: (classes,),
        OWNER: (tasks, classes),
        WEIGHTS: (2, 1 + kinds + tasks),
    }


def is_calibration(tensors: Mapping[str, Tensor], kinds: int, tasks: int) -> bool:
    """Tells whether these are the tensors of a calibration of so many kinds of evidence and tasks."""
    classes = len(tensors[MEANS]) if MEANS in tensors else 0
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    shapes = calibration_shapes(kinds, tasks, classes)
    return found == {name: shape for name, shape in shapes.items() if name in found or name != WEIGHTS}
