"""The recipes of the benchmark: 8, 14 and 20 tasks of FusionBench's models on the Hugging Face hub.

    python -m examples.clip_benchmark.recipes  # writes the .yaml files beside this one

The tasks are those of arXiv:2405.07813, in its order; the models' names are those of
github.com/tanganke/fusion_bench.
"""

from __future__ import annotations

from pathlib import Path

# By the name of an encoder in the papers its name on the hub.
ENCODERS = {
    "vit-b-32": "clip-vit-base-patch32",
    "vit-b-16": "clip-vit-base-patch16",
    "vit-l-14": "clip-vit-large-patch14",
}
# By the name of a task in the papers the end of its model's name, and the words that its head is made of.
TASKS = {
    "SUN397": ("sun397", "SUN397"),
    "Cars": ("stanford-cars", "Cars"),
    "RESISC45": ("resisc45", "RESISC45"),
    "EuroSAT": ("eurosat", "EuroSAT"),
    "SVHN": ("svhn", "SVHN"),
    "GTSRB": ("gtsrb", "GTSRB"),
    "MNIST": ("mnist", "MNIST"),
    "DTD": ("dtd", "DTD"),
    "Flowers102": ("oxford_flowers102", "Flowers102-fusion-bench"),
    "PCAM": ("pcam", "PCAM"),
    "FER2013": ("fer2013", "FER2013-fusion-bench"),
    "OxfordIIITPet": ("oxford-iiit-pet", "OxfordIIITPet-fusion-bench"),
    "STL10": ("stl10", "STL10-fusion-bench"),
    "CIFAR100": ("cifar100", "CIFAR100-fusion-bench"),
    "CIFAR10": ("cifar10", "CIFAR10"),
    "Food101": ("food101", "Food101-fusion-bench"),
    "FashionMNIST": ("fashion_mnist", "FashionMNIST-fusion-bench"),
    "EMNIST": ("emnist_letters", "EMNIST-fusion-bench"),
    "KMNIST": ("kmnist", "KMNIST-fusion-bench"),
    "RenderedSST2": ("rendered-sst2", "RenderedSST2"),
}
COUNTS = (8, 14, 20)
FOLDER = Path(__file__).parent


def pretrained_name(encoder: str) -> str:
    """The name on the hub of an encoder before fine-tuning."""
    return f"openai/{ENCODERS[encoder]}"


def finetuned_name(encoder: str, task: str) -> str:
    """The name on the hub of an encoder after fine-tuning for a task."""
    return f"tanganke/{ENCODERS[encoder]}_{TASKS[task][0]}"


def recipe(encoder: str, count: int) -> str:
    """The text of a recipe of the first `count` tasks."""
    lines = [
        f"# The paper's experiment (arXiv:2504.05342) with {encoder} and {count} tasks:",
        f"#   mass-serve build examples/clip_benchmark/{encoder}-{count}-tasks.yaml",
        "# Written by examples/clip_benchmark/recipes.py.",
        f"pretrained: hf:{pretrained_name(encoder)}",
        f"out: stores/{encoder}-{count}-tasks",
        "mode: paper",
        "patch_embedding: averaged # as the paper's code has it",
        "format: bfloat16 # by default blocks are rounded to 4 bits, which the paper's are not",
        "allow_pickle: true # OpenAI's repositories may hold pickles alone; safetensors are preferred",
        "tasks:",
    ]
    for task in list(TASKS)[:count]:
        words = TASKS[task][1]
        lines += [
            f"  - name: {task}",
            f"    checkpoint: hf:{finetuned_name(encoder, task)}",
            f"    head: {{classnames: {words}, templates: {words}}}",
        ]
    return "\n".join(lines) + "\n"


def recipes() -> dict[str, str]:
    """The text of every recipe, by the name of its file."""
    return {
        f"{encoder}-{count}-tasks.yaml": recipe(encoder, count) for encoder in ENCODERS for count in COUNTS
    }


if __name__ == "__main__":
    for name, text in recipes().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
