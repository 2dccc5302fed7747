"""The held-out pictures that travel with the repository: PNG files in folders of task and label."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from examples.demo_suite.tasks import Task

EXAMPLES = Path(__file__).resolve().parents[1]

# Numbers of the held-out pictures in each folder; whatever else is measured starts at FURTHER.
GALLERIES = {"images": range(2), "evaluation": range(2, 12)}
FURTHER = 1_000


def write_gallery(folder: Path, task: Task, numbers: range) -> None:
    """The task's held-out pictures of these numbers as folder/<task>/<label>/<number>.png."""
    for label in task.labels:
        (folder / task.name / label).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            picture = Image.fromarray(task.picture(label, "held_out", number))
            picture.save(folder / task.name / label / f"{number:02}.png", optimize=True)


def write_galleries(tasks: tuple[Task, ...], examples: Path = EXAMPLES) -> None:
    """examples/images and examples/evaluation, which have no picture in common."""
    for name, numbers in GALLERIES.items():
        for task in tasks:
            write_gallery(examples / name, task, numbers)
