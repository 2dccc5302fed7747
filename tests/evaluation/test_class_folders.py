"""Folders are taken for the class that their name says, and for none where it could be two."""

from __future__ import annotations

import pytest

from mass_serve.evaluation.inputs.class_folders import class_of_folders, expected_folders

ELEVEN = [f"label {row}" for row in range(11)]


@pytest.mark.parametrize(
    ("folders", "labels", "classes"),
    [
        (["cat", "dog"], ["dog", "cat"], {"cat": 1, "dog": 0}),
        (["dog"], ["dog", "cat"], {"dog": 0}),
        (["bus_truck"], ["car", "bus/truck"], {"bus_truck": 1}),
        (["a_b"], ["a/b", "a_b"], {"a_b": 1}),  # the label's own name goes before
        (["0", "1", "2"], ["zero", "one", "two"], {"0": 0, "1": 1, "2": 2}),
        (["1", "0"], ["1", "0"], {"1": 0, "0": 1}),  # labels that are numbers are names
        ([f"{row:05d}" for row in range(11)], ELEVEN, {f"{row:05d}": row for row in range(11)}),
    ],
)
def test_the_class_of_each_folder(folders: list[str], labels: list[str], classes: dict[str, int]) -> None:
    assert class_of_folders(folders, labels) == classes


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        ([str(row) for row in range(11)], ELEVEN),  # 10 is class 10, or as text the third
        (["0", "1"], ["zero", "one", "two"]),  # which one is missing?
        (["1", "2"], ["one", "two"]),  # from 0 on
        (["0", "x"], ["zero", "one"]),
        (["²", "0"], ["zero", "one"]),
        ([], ["zero"]),
    ],
)
def test_folders_that_could_be_of_another_class_are_of_none(folders: list[str], labels: list[str]) -> None:
    assert class_of_folders(folders, labels) == {}


def test_one_folder_that_fits_no_class_leaves_the_others_theirs() -> None:
    assert class_of_folders(["cat", "bird"], ["cat", "dog"]) == {"cat": 0}


@pytest.mark.parametrize(
    ("folders", "labels", "sentence"),
    [
        (["bird"], ["cat", "dog"], "it has cat, dog, or a folder for each, numbered from 0 to 1"),
        (
            ["bus"],
            ["car", "bus/truck"],
            "it has car, bus_truck (_ stands for /), or a folder for each, numbered",
        ),
        (["x"], ELEVEN * 2, "label 8 and 2 more, or a folder for each, numbered from 00 to 21"),
        ([str(row) for row in range(11)], ELEVEN, "with leading zeros, 00 to 10, or by their"),
        (["0"], ["zero", "one"], "it has zero, one, or a folder for each, numbered from 0 to 1"),
    ],
)
def test_folders_of_no_class_are_told_how_to_be_named(
    folders: list[str], labels: list[str], sentence: str
) -> None:
    assert sentence in expected_folders(folders, labels)
