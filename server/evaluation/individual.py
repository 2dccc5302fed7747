"""The accuracy of a fine-tuned model on its own, measured while its store is built."""

from __future__ import annotations

from model_store.backbone_spec import parameter_shapes
from model_store.plan import BuildPlan, PlannedTask
from model_store.progress import Progress, silent
from server.evaluation.baselines import dense_predictions
from server.evaluation.evaluate import BATCH_IMAGES
from server.evaluation.images import EvaluationData
from server.loading import classification_head, encoder_config
from server.preprocessing import Preprocessing


def individual_accuracy(
    plan: BuildPlan, task: PlannedTask, data: EvaluationData, progress: Progress = silent
) -> float:
    """The share of the task's images that its own fine-tuned model and head get right."""
    spec = task.checkpoint.spec
    parameters = {name: task.checkpoint.parameter(name).float() for name in parameter_shapes(spec)}
    preprocessing = Preprocessing(**plan.preprocessing.model_dump())
    head = classification_head(task.head)
    right = done = 0
    total = data.count(task.name)
    for batch in data.batches(task.name, preprocessing, BATCH_IMAGES):
        predictions = dense_predictions(encoder_config(spec), parameters, preprocessing, head, batch.pixels)
        right += int((predictions == batch.targets).sum())
        done += len(batch.pixels)
        progress(f"measuring {task.name}", done, total)
    return right / total
