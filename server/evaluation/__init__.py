"""How close a store comes to its individual models, on images whose task and class are known."""

from server.evaluation.evaluate import Options, Report, evaluate
from server.evaluation.images import EvaluationData, EvaluationDataError
from server.evaluation.individual import with_individual_accuracies

__all__ = [
    "EvaluationData",
    "EvaluationDataError",
    "Options",
    "Report",
    "evaluate",
    "with_individual_accuracies",
]
