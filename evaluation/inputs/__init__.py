"""Inputs in files: images, or texts, and what the rest of an evaluation needs to know of either.

`InputFiles` says where inputs of one kind lie, how one is read, and what an encoder takes of many.
"""

from mass_serve.evaluation.inputs.drawn import drawn
from mass_serve.evaluation.inputs.files import InputFiles, Item, Labelled, Target, TaskLabels, files_of
from mass_serve.evaluation.inputs.images import ImageFiles
from mass_serve.evaluation.inputs.places import items_by_name
from mass_serve.evaluation.inputs.texts import TextFiles

__all__ = [
    "ImageFiles",
    "InputFiles",
    "Item",
    "Labelled",
    "Target",
    "TaskLabels",
    "TextFiles",
    "drawn",
    "files_of",
    "items_by_name",
]
