"""How often a linear classifier of tasks is right that was fitted to labelled inputs of every task.

It has the same evidence as the router, and what no router without data has: the tasks of the tuning part.
What it confuses, no choice of constants will tell apart.
"""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.routing.record import Recorded
from mass_serve.router.discriminant import LEAST_SHARE

STRENGTH = 0.2  # of the fit beside the prior: scikit-learn's C
MOST_STEPS = 1000


def labelled_tasks(tuning: Recorded, evaluation: Recorded) -> Tensor:
    """The tasks [N] of the inputs of `evaluation` by a logistic regression on those of `tuning`."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=MOST_STEPS))
    classifier.fit(_features(tuning).numpy(), tuning.tasks.numpy())
    return torch.from_numpy(classifier.predict(_features(evaluation).numpy()))


def _features(record: Recorded) -> Tensor:
    """The evidence of inputs, [N, F]: log shares of energy, head scores and the router's feature."""
    shares = torch.cat([record.early, record.late], dim=1).flatten(1)
    return torch.cat(
        [(shares + LEAST_SHARE).log(), record.first_scores.flatten(1), record.features.float()], dim=1
    )
