"""How close a store comes to its individual models, on images or texts whose task and class are known."""

from mass_serve.evaluation.data import EvaluationData
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.evaluate import Options, Report, evaluate
from mass_serve.evaluation.individual import with_individual_accuracies
from mass_serve.evaluation.inputs import files_of

__all__ = [
    "EvaluationData",
    "EvaluationDataError",
    "Options",
    "Report",
    "evaluate",
    "files_of",
    "with_individual_accuracies",
]
