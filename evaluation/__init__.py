"""How close a store comes to its individual models, on images whose task and class are known."""

from mass_serve.evaluation.evaluate import Options, Report, evaluate
from mass_serve.evaluation.images import EvaluationData, EvaluationDataError
from mass_serve.evaluation.individual import with_individual_accuracies

__all__ = [
    "EvaluationData",
    "EvaluationDataError",
    "Options",
    "Report",
    "evaluate",
    "with_individual_accuracies",
]
