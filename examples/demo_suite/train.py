"""Makes the demo's checkpoints from nothing: `python -m examples.demo_suite.train --out DIR`.

DIR/pretrained and DIR/tasks/<name> are Hugging Face directories; DIR/heads, DIR/labels and DIR/figures.json
go with them, and DIR/store is the store built from them. A pretrained encoder that an earlier run left is
used again. The held-out pictures under examples/images and examples/evaluation are written anew, the same
every time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from transformers import CLIPVisionModelWithProjection

from examples.demo_suite.encoder import save_encoder
from examples.demo_suite.finetuning import FinetuningPlan
from examples.demo_suite.fonts import FontsMissingError, require_fonts
from examples.demo_suite.foundation import draw_foundation
from examples.demo_suite.gallery import EXAMPLES, FURTHER, GALLERIES, write_galleries
from examples.demo_suite.models import finetune_task, measure
from examples.demo_suite.pretraining import PretrainingPlan, pretrain
from examples.demo_suite.store import build_store
from examples.demo_suite.tasks import TASKS, Task

FOUNDATION_PICTURES = 160_000
FURTHER_PER_LABEL = 40
THREADS = 2


def report(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def make_task(
    task: Task, pretrained: CLIPVisionModelWithProjection, plan: FinetuningPlan, out: Path
) -> dict[str, float]:
    """Fine-tunes the encoder for one task, saves what belongs to it and returns its accuracies."""
    model = finetune_task(task, pretrained, plan, out)
    further = range(FURTHER, FURTHER + FURTHER_PER_LABEL)
    return {
        "pretrained": measure(task, pretrained, model.head, further),
        "individual": measure(task, model.encoder, model.head, further),
        "individual_on_evaluation": measure(task, model.encoder, model.head, GALLERIES["evaluation"]),
    }


def foundation(folder: Path) -> CLIPVisionModelWithProjection:
    """The pretrained encoder: the one in the folder if an earlier run finished it, otherwise a new one."""
    if (folder / "preprocessor_config.json").exists():  # written last
        report(f"Using {folder}")
        return CLIPVisionModelWithProjection.from_pretrained(folder)
    report(f"Drawing {FOUNDATION_PICTURES} pictures to pretrain on")
    pictures = draw_foundation(FOUNDATION_PICTURES, THREADS)
    report("Pretraining")
    pretrained = pretrain(pictures, PretrainingPlan(), report)
    save_encoder(pretrained, folder)
    return pretrained


def make_suite(out: Path) -> dict[str, dict[str, float]]:
    """Everything, from the pictures to the last head; returns the accuracies per task and on average."""
    pretrained = foundation(out / "pretrained")
    figures: dict[str, dict[str, float]] = {}
    for task in TASKS:
        report(f"Fine-tuning for {task.name}")
        figures[task.name] = make_task(task, pretrained, FinetuningPlan(), out)
        report("  " + ", ".join(f"{name} {value:.3f}" for name, value in figures[task.name].items()))
    names = next(iter(figures.values()))
    figures["average"] = {name: sum(f[name] for f in figures.values()) / len(TASKS) for name in names}
    return figures


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when all is made, 2 when fonts are missing."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo_suite.train", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the checkpoints, heads and labels"
    )
    out: Path = parser.parse_args(arguments).out
    begun = time.monotonic()
    try:
        require_fonts()
    except FontsMissingError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(THREADS)
    out.mkdir(parents=True, exist_ok=True)
    report("Writing the held-out pictures")
    write_galleries(TASKS)
    figures = make_suite(out)
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    report(f"Average individual accuracy {figures['average']['individual']:.3f}")
    report(f"Built {build_store(out, TASKS, EXAMPLES / 'evaluation')}")
    report(f"Made {out} in {(time.monotonic() - begun) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
