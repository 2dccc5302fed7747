"""What a job writes: rows of answers, in parts that are whole or not there."""

from typing import TYPE_CHECKING

from mass_serve.public_names import public_names

if TYPE_CHECKING:
    from mass_serve.jobs.results.public import *
else:
    __getattr__, __dir__ = public_names(__name__)
