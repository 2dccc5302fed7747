"""Why a job cannot begin, or cannot go on, as one tree; the text is one sentence that says what to do.

JobError
├── InputsError     what is given to read is not there, or not of a form that is read
└── ResultsError    the folder of results is another job's, or cannot be written to
"""

from __future__ import annotations


class JobError(Exception):
    """A job cannot begin or go on."""


class InputsError(JobError):
    """What is given to read is not there, or is of no form that is read."""


class ResultsError(JobError):
    """The folder of results is another job's, or cannot be written to."""
