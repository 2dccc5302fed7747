"""What is wrong with the data of an evaluation or a calibration."""

from __future__ import annotations


class EvaluationDataError(Exception):
    """The folder does not hold labelled inputs of these tasks; the text says what to do."""
