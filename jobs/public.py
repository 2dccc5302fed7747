"""What `mass_serve.jobs` has for other folders."""

from mass_serve.jobs.answering import (
    Answered,
    Asked,
    Stream,
    answer_all,
    answer_prepared,
    in_order,
    preparer_of,
)
from mass_serve.jobs.errors import InputsError, JobError, ResultsError
from mass_serve.jobs.preparing import Limits
from mass_serve.jobs.results import FORMS, Form, Result, RowForm
from mass_serve.jobs.run import Done, Job, JobProgress, RowSource, result_of, run_job, run_job_by
from mass_serve.jobs.sources import IMAGE, TEXT, Columns, Found, JobInput, Position, inputs_below

__all__ = [
    "FORMS",
    "IMAGE",
    "TEXT",
    "Answered",
    "Asked",
    "Columns",
    "Done",
    "Form",
    "Found",
    "InputsError",
    "Job",
    "JobError",
    "JobInput",
    "JobProgress",
    "Limits",
    "Position",
    "Result",
    "ResultsError",
    "RowForm",
    "RowSource",
    "Stream",
    "answer_all",
    "answer_prepared",
    "in_order",
    "inputs_below",
    "preparer_of",
    "result_of",
    "run_job",
    "run_job_by",
]
