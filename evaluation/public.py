"""What `mass_serve.evaluation` has for other folders."""

from mass_serve.evaluation.data import EvaluationData
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.evaluate import Options, Report
from mass_serve.evaluation.individual import with_individual_accuracies
from mass_serve.evaluation.inputs import files_of

__all__ = [
    "EvaluationData",
    "EvaluationDataError",
    "Options",
    "Report",
    "files_of",
    "with_individual_accuracies",
]
