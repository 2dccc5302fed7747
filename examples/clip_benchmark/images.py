"""The test images of the benchmark's tasks, in the folders that `mass-serve eval` reads.

    pip install datasets
    python -m examples.clip_benchmark.images 8 DATA
    mass-serve eval my-store DATA --baseline pretrained --baseline tsv_m

They are those of the data sets on the Hugging Face hub that FusionBench measures with, of which a pass over
each is fetched. `--per-class 20` keeps the first 20 of every class. The folders of classes are numbered.
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from examples.clip_benchmark.recipes import TASKS
from mass_serve.model_store.words import read_class_names


@dataclass(frozen=True)
class DataSet:
    """Labelled images on the hub, and what their columns are called there."""

    name: str
    configuration: str | None = None
    split: str = "test"
    image: str = "image"
    label: str = "label"


DATA_SETS = {
    "SUN397": DataSet("tanganke/sun397"),
    "Cars": DataSet("tanganke/stanford_cars"),
    "RESISC45": DataSet("tanganke/resisc45"),
    "EuroSAT": DataSet("tanganke/eurosat"),
    "SVHN": DataSet("ufldl-stanford/svhn", "cropped_digits"),
    "GTSRB": DataSet("tanganke/gtsrb"),
    "MNIST": DataSet("ylecun/mnist"),
    "DTD": DataSet("tanganke/dtd"),
    "Flowers102": DataSet("dpdl-benchmark/oxford_flowers102"),
    "PCAM": DataSet("1aurent/PatchCamelyon"),
    "FER2013": DataSet("clip-benchmark/wds_fer2013", image="jpg", label="cls"),
    "OxfordIIITPet": DataSet("timm/oxford-iiit-pet"),
    "STL10": DataSet("tanganke/stl10"),
    "CIFAR100": DataSet("tanganke/cifar100"),
    "CIFAR10": DataSet("tanganke/cifar10"),
    "Food101": DataSet("ethz/food101", split="validation"),
    "FashionMNIST": DataSet("zalando-datasets/fashion_mnist"),
    "EMNIST": DataSet("tanganke/emnist_letters"),
    "KMNIST": DataSet("tanganke/kmnist"),
    "RenderedSST2": DataSet("nateraw/rendered-sst2"),
}


def class_folder(label: int, classes: int) -> str:
    """The name of a class's folder: its number, so that sorted names are in the order of the labels."""
    return str(label).zfill(len(str(classes - 1)))


def write_images(
    rows: Iterable[Mapping[str, Any]], data_set: DataSet, classes: int, folder: Path, per_class: int | None
) -> int:
    """Writes the PIL images of labelled rows as PNG files, and returns how many there are.

    Raises ValueError for a label outside 0..classes - 1.
    """
    written: Counter[int] = Counter()
    places = [folder / class_folder(label, classes) for label in range(classes)]
    for place in places:  # also of classes without an image: numbers are taken where all are there
        place.mkdir(parents=True)
    for row in rows:
        label = int(row[data_set.label])
        if not 0 <= label < classes:
            raise ValueError(f"{data_set.name} has a label {label}, expected 0 to {classes - 1}")
        if per_class is not None and written[label] == per_class:
            continue
        image = row[data_set.image]
        plain = image if image.mode in ("L", "RGB") else image.convert("RGB")  # PNG has no CMYK
        plain.save(places[label] / f"{written[label]}.png")
        written[label] += 1
    return written.total()


def main() -> None:
    """Fetches the images of as many tasks as asked for; tasks that are there already are left as they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tasks", type=int, choices=range(1, len(TASKS) + 1), metavar="TASKS")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--per-class", type=int, metavar="N")
    arguments = parser.parse_args()
    # Of the user's environment: nothing else here needs it.
    datasets: Any = import_module("datasets")
    for task in list(TASKS)[: arguments.tasks]:
        folder, data_set = arguments.data / task, DATA_SETS[task]
        if folder.exists():
            continue
        rows = datasets.load_dataset(
            data_set.name, data_set.configuration, split=data_set.split, streaming=True
        )
        partial, classes = folder.with_name(f".{task}"), len(read_class_names(TASKS[task][1]))
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
        count = write_images(rows, data_set, classes, partial, arguments.per_class)
        partial.replace(folder)
        print(f"{task}: {count} images", flush=True)


if __name__ == "__main__":
    main()
