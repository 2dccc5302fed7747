"""What there is to say of a task that moved far from its base; `task_distance` measures how far."""

from __future__ import annotations

UNUSUAL_DISTANCE = 0.3


def distance_warning(task: str, distance: float | None) -> str | None:
    """Returns what there is to say of a task whose distance is unusual; None where it is not, or unknown."""
    if distance is None or distance <= UNUSUAL_DISTANCE:
        return None
    return f"{described(task, distance)}: make sure that it was fine-tuned from this very model"


def described(task: str, distance: float) -> str:
    """Says how far a task is from the pretrained model."""
    return f"task {task}: its distance from the pretrained model is {distance:.2f}, usual is 0.001 to 0.1"
