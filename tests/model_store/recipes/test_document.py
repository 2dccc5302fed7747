"""YAML of recipes: plain values with their lines, and nothing that could become large or be executed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mass_serve.model_store.errors import RecipeError
from mass_serve.model_store.recipes.document import read_document


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(RecipeError) as caught:
        read_document(written(folder, text))
    found = str(caught.value).replace(str(folder) + "/", "")
    assert "\n" not in found
    return found


def test_values_have_lines(tmp_path: Path) -> None:
    text = "a: 1\nb:\n  - x\n  - {c: 2.5, d: null, e: true,\n     f: 2026-01-31}\n"
    document = read_document(written(tmp_path, text))
    assert document.content == {"a": 1, "b": ["x", {"c": 2.5, "d": None, "e": True, "f": "2026-01-31"}]}
    assert document.where(("b", 1, "f")) == f"{tmp_path}/recipe.yaml, line 5, b.1.f"
    assert document.where(("b", 1, "gone")).endswith("line 4, b.1.gone")
    assert document.where(()).endswith("recipe.yaml, line 1")


def test_aliases_stand_for_what_they_name(tmp_path: Path) -> None:
    document = read_document(written(tmp_path, "a: &words [x, y]\nb: *words\n"))
    assert document.content == {"a": ["x", "y"], "b": ["x", "y"]}


BOMB = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)),
    ]
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "recipe.yaml is empty: a recipe names a pretrained model and its tasks"),
        ("a: 1\nb: 2\na: 3\n", "recipe.yaml, line 3: the key a is there twice"),
        ("x:\n  - {a: 1, a: 2}\n", "recipe.yaml, line 2: the key a is there twice"),
        ("a: [1\nb: 2\n", "recipe.yaml, line 2: "),
        ("a: b: c", "recipe.yaml, line 1: mapping values are not allowed here"),
        ("a: *nobody", "recipe.yaml, line 1: found undefined alias 'nobody'"),
        ("a: 1\n--- \nb: 2", "recipe.yaml, line 2: but found another document"),
        ("a:\n\tb: 1", "recipe.yaml, line 2: found character '\\t' that cannot start any token"),
        ("1: a", "recipe.yaml, line 1: a key must be a text, found '1'"),
        ("? [a]\n: b", "recipe.yaml, line 1: a key must be a text, found"),
        ("a: &a {b: 1}\nc:\n  <<: *a", "recipe.yaml, line 3: a key must be a text, found '<<'"),
        (
            "a: !!python/object/apply:os.system [x]",
            "line 1, a: the tag tag:yaml.org,2002:python/object/apply:os",
        ),
        ("a: !mine 3", "recipe.yaml, line 1, a: the tag !mine is not read"),
        ("a: !!binary aGk=", "recipe.yaml, line 1, a: the tag tag:yaml.org,2002:binary is not read"),
        ("a: !!set {b}", "recipe.yaml, line 1, a: the tag tag:yaml.org,2002:set is not read"),
        ("a: 0b_", "recipe.yaml, line 1, a: invalid literal for int()"),
        ("a: &a [*a]", "recipe.yaml, line 1: values are nested deeper than 20 levels"),
        ("a: " + "[" * 50 + "]" * 50, "recipe.yaml, line 1: values are nested deeper than 20 levels"),
        ("[" * 100_000, "recipe.yaml is nested deeper than 20 levels"),
        (BOMB, "its aliases stand for more than 100,000 values"),
        (b"a: \xff", "recipe.yaml: byte 3 is not UTF-8"),
        ("a: \x07", "recipe.yaml is not YAML: unacceptable character #x0007"),
        ("# " + "x" * (1 << 17), "recipe.yaml has 131,074 bytes, and no recipe needs more than 131,072"),
        (f"a: &a {'x' * 60_000}\nb: [{'*a, ' * 15_000}]", "its aliases stand for more than 1,048,576 charac"),
        ('a:\n  b: "\\U00110000"', "recipe.yaml, line 2: a text has a character that does not exist"),
        ('a: "\\Uffffffff"', "recipe.yaml, line 1: a text has a character that does not exist"),
        ('a: "\\ud800"', r"recipe.yaml, line 1, a: a text may not have the character '\ud800'"),
        ('"\\ud800": a', r"recipe.yaml, line 1: a text may not have the character '\ud800'"),
        ('a: "b\\0"', r"recipe.yaml, line 1, a: a text may not have the character '\x00'"),
        ('"a\\nb": !mine 3', r"recipe.yaml, line 1, a\nb: the tag !mine is not read"),
    ],
    ids=range(30),
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert told in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "tagged",
    [
        *("!!bool maybe", "!!int ''", "!!int '-'", "!!int [1]", "!!int 1", "!!float ''", "!!float 1.5"),
        *("!!str [a]", "!!str a", "!!map x", "!!map {a: b}", "!!seq x", "!!seq {a: b}", "!!null ''"),
        *("! a", "&anchor !!str a", "!!timestamp 2026-01-31", "!%0Amine 3", "!<tag:yaml.org,2002:str> a"),
    ],
)
def test_no_tag_is_read(tmp_path: Path, tagged: str) -> None:
    assert refusal(tmp_path, f"a:\n  - b: {tagged}\n").startswith("recipe.yaml, line 2, a.0.b: the tag ")
    assert refusal(tmp_path, f"a:\n  - ? {tagged}\n    : b\n").startswith(
        "recipe.yaml, line 2, a.0: the tag "
    )


@pytest.mark.parametrize("number", ["9" * 65, "0x" + "f" * 5000, "1." + "0" * 63, "-" + "9" * 64])
def test_long_numbers_are_refused(tmp_path: Path, number: str) -> None:
    told = f"line 1, a: a number has {len(number):,} characters, and no recipe needs more than 64; quote it"
    assert told in refusal(tmp_path, f"a: {number}")
    assert read_document(written(tmp_path, f"a: '{number}'")).content == {"a": number}


@pytest.mark.parametrize("text", ["1:30", "1:30.5", ":".join(["1"] * 400) + ".5", ":".join(["59"] * 40_000)])
def test_numbers_to_the_base_60_are_texts(tmp_path: Path, text: str) -> None:
    assert read_document(written(tmp_path, f"a: {text}")).content == {"a": text}


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone\.yaml cannot be read: No such file or directory"):
        read_document(tmp_path / "gone.yaml")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RecipeError, match="fifo cannot be read: it is a FIFO"):
        read_document(tmp_path / "fifo")
