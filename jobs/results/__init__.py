"""What a job writes: rows of answers, in parts that are whole or not there."""

from mass_serve.jobs.results.folder import Counts, Result, ResultsFolder
from mass_serve.jobs.results.forms import FORMS, Form, check_form
from mass_serve.jobs.results.rows import Row, RowForm

__all__ = ["FORMS", "Counts", "Form", "Result", "ResultsFolder", "Row", "RowForm", "check_form"]
