"""The drawn suites, each from nothing: encoder, held-out pictures, fine-tuned models, the store of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import CLIPVisionModelWithProjection

from examples.demo_suite.encoder import save_encoder
from examples.demo_suite.finetuning import FinetuningPlan
from examples.demo_suite.fonts import require_fonts
from examples.demo_suite.gallery import FURTHER, write_gallery
from examples.demo_suite.models import finetune_task, measure
from examples.demo_suite.pretraining import Report
from examples.demo_suite.store import build_store
from examples.demo_suite.tasks import TASKS as DEMO_TASKS
from examples.demo_suite.tasks import Task
from examples.suites import near_duplicates, twenty_tasks
from examples.suites.encoders import MakeEncoder, shipped_encoder, weak_encoder
from examples.suites.unseen import write_unseen

# Numbers of the held-out pictures of each label: to measure on, and to tune or calibrate on.
GALLERIES = {"evaluation": range(FURTHER, FURTHER + 30), "tuning": range(10)}


PLAN = FinetuningPlan()
BRIEF = FinetuningPlan(steps=200)


@dataclass(frozen=True)
class Suite:
    """Tasks and the encoder that is fine-tuned for each of them."""

    tasks: tuple[Task, ...]
    encoder: MakeEncoder
    plan: FinetuningPlan = PLAN


SUITES = {
    "near_duplicates": Suite(near_duplicates.TASKS, shipped_encoder),
    "weak_demo": Suite(DEMO_TASKS, weak_encoder, BRIEF),
    "twenty_tasks": Suite(twenty_tasks.TASKS, weak_encoder, BRIEF),
    "twenty_tasks_demo": Suite(twenty_tasks.TASKS, shipped_encoder, BRIEF),
}


def make_suite(suite: Suite, out: Path, report: Report) -> Path:
    """Writes all of the suite to `out` and returns the folder of its store.

    An encoder and models that are there already are used as they are. Raises FontsMissingError.
    """
    require_fonts()
    report("Writing the held-out pictures, and some that no task covers")
    for gallery, numbers in GALLERIES.items():
        for task in suite.tasks:
            write_gallery(out / gallery, task, numbers)
    write_unseen(out / "ood")
    pretrained = kept_encoder(out / "pretrained", suite.encoder, report)
    for task in suite.tasks:
        if (out / "labels" / f"{task.name}.json").exists():  # written last
            continue
        model = finetune_task(task, pretrained, suite.plan, out)
        accuracy = measure(task, model.encoder, model.head, GALLERIES["evaluation"])
        report(f"Fine-tuned for {task.name}: accuracy {accuracy:.3f}")
    return build_store(out, suite.tasks, out / "evaluation")


def kept_encoder(folder: Path, make: MakeEncoder, report: Report) -> CLIPVisionModelWithProjection:
    """The encoder in the folder if an earlier run finished it, otherwise a new one, saved there."""
    if not (folder / "preprocessor_config.json").exists():  # written last
        save_encoder(make(report), folder)
    report(f"Using {folder}")
    return CLIPVisionModelWithProjection.from_pretrained(folder)
