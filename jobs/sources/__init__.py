"""What a job reads: files, folders, patterns and URLs; images and texts, archives and tables of them.

Inputs are streamed in an order that is always the same, and what cannot be read is one of them.
"""

from mass_serve.jobs.sources.content import Found, weight
from mass_serve.jobs.sources.listing import Listing
from mass_serve.jobs.sources.reading import JobInput, Position, check_tables, inputs, inputs_below
from mass_serve.jobs.sources.trees import Tree, tree_of
from mass_serve.jobs.sources.values import IMAGE, TEXT, Columns

__all__ = [
    "IMAGE",
    "TEXT",
    "Columns",
    "Found",
    "JobInput",
    "Listing",
    "Position",
    "Tree",
    "check_tables",
    "inputs",
    "inputs_below",
    "tree_of",
    "weight",
]
