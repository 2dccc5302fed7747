"""The thresholds of a task of any number of labels, chosen on labelled inputs of it."""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.engine import Engine
from mass_serve.evaluation.data import EvaluationData
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.index import HALVES, Selection
from mass_serve.model_store.progress import Progress, silent


def chosen_thresholds(
    engine: Engine, task: str, data: EvaluationData, progress: Progress = silent
) -> dict[str, float]:
    """The threshold of each label with which its F1 on the task's inputs is the best, as the store answers.

    A label that no input has is left out: nothing tells where its threshold should be. What is measured on
    the same inputs afterwards flatters. Raises EvaluationDataError where there are no inputs of the task.
    """
    if task not in data.tasks:
        raise EvaluationDataError(f"{data.root} has no {data.files.noun} of {task}: add some")
    rows, wanted = [], []
    for half in HALVES:
        for batch in data.batches(Selection(task, half)):
            queries = [data.files.query(one, (task,)) for one in batch.inputs]
            rows += [answer.probabilities for answer in engine.classify_batch(queries).all_answers()]
            wanted += batch.targets
            progress(f"answering for {task}", len(rows), data.count(task))
    probabilities = torch.stack(rows)
    found = {}
    for row, label in enumerate(engine.tasks[task].labels):
        has_it = torch.tensor([row in target for target in wanted])
        if has_it.any():
            found[label] = best_threshold(probabilities[:, row], has_it)
    return found


def best_threshold(probabilities: Tensor, has_it: Tensor) -> float:
    """The threshold by which the F1 of one label is the best, of n probabilities [n] and truths [n] bool.

    `F1 = 2 hits / (given + wanted)`. It lies halfway between two neighbouring probabilities, or between the
    lowest and 0; of several that are as good it is the highest.
    """
    ordered, order = probabilities.double().sort(descending=True)
    given = torch.arange(1, len(ordered) + 1)
    f1 = 2 * has_it[order].cumsum(0) / (given + has_it.sum())
    below = torch.cat([ordered[1:], ordered.new_zeros(1)])
    # Between equal probabilities there is no threshold.
    best = int(f1.masked_fill(ordered == below, -1).argmax())
    return float((ordered[best] + below[best]) / 2)
