"""Many inputs through an engine without a server: streamed, in full batches, killed and gone on with.

`run_job` is what `mass-serve batch` does; `answer_all` is the same without a folder of results. `journal` is
what any long run can keep to be able to go on.
"""

from mass_serve.jobs.answering import Answered, Asked, answer_all
from mass_serve.jobs.errors import InputsError, JobError, ResultsError
from mass_serve.jobs.results import FORMS, Form, RowForm
from mass_serve.jobs.run import Done, Job, JobProgress, run_job
from mass_serve.jobs.sources import IMAGE, TEXT, Columns

__all__ = [
    "FORMS",
    "IMAGE",
    "TEXT",
    "Answered",
    "Asked",
    "Columns",
    "Done",
    "Form",
    "InputsError",
    "Job",
    "JobError",
    "JobProgress",
    "ResultsError",
    "RowForm",
    "answer_all",
    "run_job",
]
