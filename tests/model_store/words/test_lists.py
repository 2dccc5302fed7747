"""Class names and templates: the published ones by name, and a user's in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.words import read_class_names, read_templates
from mass_serve.model_store.words.lists import TABLES
from mass_serve.model_store.words.prompts import check_class_names, check_templates

# How many classes and templates the published heads have.
SIZES = {
    "Cars": (196, 8),
    "DTD": (47, 8),
    "EuroSAT": (10, 3),
    "GTSRB": (43, 3),
    "MNIST": (10, 1),
    "RESISC45": (45, 18),
    "SUN397": (397, 2),
    "SVHN": (10, 1),
    "CIFAR100": (100, 18),
    "STL10": (10, 18),
    "Flowers102": (102, 1),
    "OxfordIIITPet": (37, 1),
    "PCAM": (2, 1),
    "FER2013": (7, 6),
    "EMNIST": (10, 1),
    "CIFAR10": (10, 18),
    "Food101": (101, 1),
    "FashionMNIST": (10, 2),
    "RenderedSST2": (2, 1),
    "KMNIST": (10, 1),
}
OF_FUSION_BENCH = {
    "CIFAR100": (100, 18),
    "STL10": (10, 2),
    "Flowers102": (102, 1),
    "OxfordIIITPet": (37, 1),
    "FER2013": (7, 6),
    "EMNIST": (26, 1),
    "Food101": (101, 1),
    "FashionMNIST": (10, 2),
    "KMNIST": (10, 1),
}


def test_the_twenty_tasks_have_as_many_words_as_the_published_heads() -> None:
    found = {name: (len(read_class_names(name)), len(read_templates(name))) for name in SIZES}
    assert found == SIZES
    others = {name: f"{name}-fusion-bench" for name in OF_FUSION_BENCH}
    found = {name: (len(read_class_names(of)), len(read_templates(of))) for name, of in others.items()}
    assert found == OF_FUSION_BENCH
    assert TABLES.keys() == {*SIZES, *others.values(), "clip-imagenet"}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_a_head(name: str) -> None:
    check_templates(read_templates(name), name)
    if name != "clip-imagenet":
        check_class_names(read_class_names(name), name)
        assert read_class_names(name.upper()) == read_class_names(name)
    assert json.loads(TABLES[name].read_text(encoding="utf-8"))["source"].endswith(".")


@pytest.mark.parametrize(
    ("task", "row", "name"),
    [
        ("Cars", 0, "AM General Hummer SUV 2000"),
        ("Cars", 173, "Ram C/V Cargo Van Minivan 2012"),
        ("Cars", 195, "smart fortwo Convertible 2012"),
        ("DTD", 46, "zigzagged"),
        ("EuroSAT", 2, "brushland or shrubland"),
        ("GTSRB", 14, "stop"),
        ("RESISC45", 37, "snowberg"),
        ("SUN397", 396, "youth hostel"),
        ("SVHN", 9, "9"),
        ("CIFAR100", 26, "crab"),
        ("CIFAR100-fusion-bench", 26, "cra"),
        ("STL10", 7, "monkey"),
        ("Flowers102", 92, "air plant"),
        ("Flowers102-fusion-bench", 92, "ball moss"),
        ("OxfordIIITPet", 36, "Yorkshire Terrier"),
        ("PCAM", 1, "lymph node containing metastatic tumor tissue"),
        ("FER2013", 3, "['happy', 'smiling']"),
        ("FER2013-fusion-bench", 4, "neutral"),
        ("Food101", 1, "baby_back_ribs"),
        ("FashionMNIST", 0, "T-shirt/top"),
        ("KMNIST", 9, "wo"),
        ("RenderedSST2", 0, "negative"),
    ],
)
def test_rows_of_published_heads(task: str, row: int, name: str) -> None:
    assert read_class_names(task)[row] == name


def test_templates_of_published_heads() -> None:
    assert read_templates("SUN397") == ("a photo of a {}.", "a photo of the {}.")
    assert read_templates("GTSRB")[0] == 'a zoomed in photo of a "{}" traffic sign.'
    assert read_templates("PCAM") == ("this is a photo of {}",)
    assert read_templates("STL10") == read_templates("CIFAR10") != read_templates("STL10-fusion-bench")
    imagenet = read_templates("clip-imagenet")
    assert (len(imagenet), imagenet[0], imagenet[-1]) == (80, "a bad photo of a {}.", "a tattoo of the {}.")
    with pytest.raises(CheckpointError, match="clip-imagenet has templates and no class names: give a file"):
        read_class_names("clip-imagenet")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("names.txt", "Kapstraße\nneko 猫\n['a']\n"),
        ("names", "\ufeffKapstraße\r\n  neko 猫 \r\n['a']"),
        ("names.json", json.dumps(["Kapstraße", "neko 猫", "['a']"])),
    ],
)
def test_a_file_has_one_a_line_or_a_json_list(file: str, content: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content, encoding="utf-8")
    assert read_class_names(str(tmp_path / file)) == ("Kapstraße", "neko 猫", "['a']")


def test_a_file_with_the_name_of_a_table_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MNIST").write_text("one\ntwo\n")
    assert len(read_class_names("MNIST")) == 10
    assert read_class_names("./MNIST") == ("one", "two")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("names.txt", b"", r"names\.txt holds no class name, and a head needs one or more"),
        ("names.txt", b" \n\n", r"names\.txt holds no class name"),
        ("names.txt", b"cat\n\ndog\n", r"names\.txt holds an empty class name: remove it"),
        ("names.txt", b"cat\ndog\n cat\n", r"names\.txt holds the class name 'cat' twice"),
        ("names.txt", b"cat\n\xff\n", r"names\.txt: byte 4 is not UTF-8"),
        ("names.txt", b"cat\x00\n", r"names\.txt holds a class name with control characters"),
        ("names.json", b"{}", r"names\.json must hold a JSON list of texts"),
        ("names.json", b'["a", 1]', r"names\.json must hold a JSON list of texts"),
        ("names.json", b"[]", r"names\.json holds no class name"),
        ("names.json", b'["a", ""]', r"names\.json holds an empty class name"),
        ("names.json", b'["a"', r"names\.json is not valid JSON"),
        ("names.json", rb'["\ud800"]', r"names\.json holds half of a surrogate pair"),
    ],
)
def test_files_that_hold_no_class_names(file: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        read_class_names(str(tmp_path / file))


def test_what_is_neither_a_file_nor_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"carz is neither a file nor one of CIFAR10, .*Cars, DTD, "):
        read_class_names("carz")
    for suffix in ("txt", "json"):
        (tmp_path / f"folder.{suffix}").mkdir()
        with pytest.raises(CheckpointError, match="cannot be read: it is a folder"):
            read_templates(str(tmp_path / f"folder.{suffix}"))
    (tmp_path / "templates.txt").write_text("a photo\n")
    with pytest.raises(CheckpointError, match="which has 0 places for a class name"):
        read_templates(str(tmp_path / "templates.txt"))
