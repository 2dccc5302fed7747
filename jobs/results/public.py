"""What `mass_serve.jobs.results` has for other folders."""

from mass_serve.jobs.results.folder import Counts, Result, ResultFiles, ResultsFolder
from mass_serve.jobs.results.forms import FORMS, Form, check_form
from mass_serve.jobs.results.rows import Row, RowForm

__all__ = [
    "FORMS",
    "Counts",
    "Form",
    "Result",
    "ResultFiles",
    "ResultsFolder",
    "Row",
    "RowForm",
    "check_form",
]
