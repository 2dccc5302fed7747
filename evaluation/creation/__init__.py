"""Tasks from a handful of labelled images: a head, and where that is better, coefficients over other tasks.

    created = create("my-store", "parts", Path("images"), torch.device("cpu"))  # images/<class>/*.png

`discriminant` fits heads of class means, `scaling` learns how much of each task's change helps, `held_out`
tells on folds of the images what is kept, and `create` puts a task into the store.
"""

from mass_serve.evaluation.creation.create import Created, create

__all__ = ["Created", "create"]
