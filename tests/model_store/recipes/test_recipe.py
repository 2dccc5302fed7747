"""Recipes: what they say, and that every mistake in one is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.errors import RecipeError
from mass_serve.model_store.recipes import HeadWords, ModelName, Recipe, read_recipe
from mass_serve.router import MODE_NAMES

WHOLE = """\
# The example.
pretrained: hf:org/base@v1
out: ../stores/cars
mode: paper
compression_ratio: 0.125
top_k: 2
tasks:
  - name: cars
    checkpoint: models/cars
    head: {classnames: Cars, templates: my-templates.txt}
    individual_accuracy: 0.77
  - name: pets
    checkpoint: s3://bucket/pets
    head: heads/pets.safetensors
    labels: /absolute/pets.json
  - name: two
    checkpoint: file:///models/two
    head:
      classnames: [cat, dog]
      templates: ["a photo of a {}."]
      tokenizer: hf:org/base
"""


def read(folder: Path, text: str) -> Recipe:
    (folder / "recipe.yaml").write_text(text)
    return read_recipe(folder / "recipe.yaml", MODE_NAMES)


def test_a_whole_recipe(tmp_path: Path) -> None:
    recipe = read(tmp_path, WHOLE)
    assert recipe.pretrained == ModelName(
        "hf:org/base@v1", tmp_path, f"{tmp_path}/recipe.yaml, line 2, pretrained"
    )
    assert recipe.out == str(tmp_path / "../stores/cars")
    assert recipe.options == {"mode": "paper", "compression_ratio": 0.125, "top_k": 2}
    cars, pets, two = recipe.tasks
    assert cars.checkpoint.path == tmp_path / "models/cars", "relative to the recipe"
    assert isinstance(cars.head, HeadWords)
    assert isinstance(cars.head.templates, ModelName)
    assert cars.head.templates.where == f"{tmp_path}/recipe.yaml, line 10, tasks.0.head.templates"
    assert cars.individual_accuracy == 0.77
    assert isinstance(pets.head, ModelName)
    assert (pets.checkpoint.text, pets.head.path) == ("s3://bucket/pets", tmp_path / "heads/pets.safetensors")
    assert pets.labels is not None
    assert pets.labels.path == Path("/absolute/pets.json")
    assert isinstance(two.head, HeadWords)
    assert two.head.classnames == ("cat", "dog")
    assert two.head.tokenizer is not None


def test_every_option_of_a_build_is_a_key(tmp_path: Path) -> None:
    values = {name: value for name, value in BuildOptions().model_dump().items() if value is not None}
    text = "".join(f"{name}: {str(value).lower()}\n" for name, value in values.items())
    assert read(tmp_path, text).options == values


def test_a_recipe_may_leave_all_to_the_flags(tmp_path: Path) -> None:
    assert read(tmp_path, "top_k: 1") == Recipe(None, None, None, (), {}, {"top_k": 1})


def in_tasks(text: str) -> str:
    return f"tasks:\n  - name: cars\n    checkpoint: c\n    {text}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "line 1: a recipe must be keys with values"),
        ("text", "line 1: a recipe must be keys with values"),
        ("pretraind: x", "line 1, pretraind: unknown key; did you mean pretrained?"),
        (
            "top_k: 2\ncompresion-ratio: 1",
            "line 2, compresion-ratio: unknown key; did you mean compression_ratio?",
        ),
        ("xyz: 1", "line 1, xyz: unknown key; known are compression_ratio, rank, energy, budget, mode, "),
        (in_tasks("heads: x"), "line 4, tasks.0.heads: unknown key; did you mean head?"),
        (in_tasks("zzzzz: x"), "tasks.0.zzzzz: unknown key; known are name, checkpoint, head, labels, indiv"),
        (in_tasks("head: {classnames: a, template: b}"), "line 4, tasks.0.head.templates: is missing"),
        (
            in_tasks("head: {classnames: a, templates: b, classes: c}"),
            "line 4, tasks.0.head.classes: unknown key; did you mean classnames?",
        ),
        (in_tasks("head: 3"), "line 4, tasks.0.head: Input should be a valid string, found 3"),
        (
            in_tasks("head: {classnames: [], templates: b}"),
            "tasks.0.head.classnames: Tuple should have at least 1",
        ),
        (
            in_tasks("head: {classnames: [a, 2], templates: b}"),
            "tasks.0.head.classnames.1: Input should be a valid str",
        ),
        (
            in_tasks("individual_accuracy: 77"),
            "tasks.0.individual_accuracy: Input should be less than or equal to 1, f",
        ),
        (
            in_tasks("individual_accuracy: .nan"),
            "line 4, tasks.0.individual_accuracy: Input should be a finite number",
        ),
        ("tasks:\n  - name: cars", "line 2, tasks.0.checkpoint: is missing"),
        ("tasks:\n  - cars", "line 2, tasks.0: Input should be an object"),
        ("tasks:\n  name: cars", "line 1, tasks: Input should be a valid array"),
        ("tasks:\n  - {checkpoint: c,\n     name: a b}", "line 3, tasks.0.name: task name 'a b' must be"),
        (
            "tasks:\n  - {checkpoint: c, name: no}",
            "tasks.0.name: Input should be a valid string, found false",
        ),
        ("tasks:\n  - {checkpoint: c, name: stats}", "tasks.0.name: the task name 'stats' has a meaning"),
        ("top_k: many", 'line 1, top_k: Input should be a valid integer, found "many"'),
        ("top_k: 2.0", "line 1, top_k: Input should be a valid integer"),
        ("allow_pickle: 1", "line 1, allow_pickle: Input should be a valid boolean, found 1"),
        (
            "block_dtype: int8",
            "line 1, block_dtype: Input should be 'bfloat16', 'float16' or 'float32', found",
        ),
        (
            "format: int3",
            "line 1, format: Input should be 'bfloat16', 'float16', 'float32', 'int8' or 'int4'",
        ),
        ("tasks:\n  - {name: a, checkpoint: c, format: int2}", "line 2, tasks.0.format: Input should be"),
        ("mode: sometimes", "line 1, mode: must be one of paper, one_pass, "),
        ("mode: sometimes", ', not "sometimes"'),
        ("out: s\nrank: 0", "line 2, rank: the rank must be from 1 to 65536, not 0"),
        ("energy: 2", "line 1, energy: the energy must be above 0 and at most 1, not 2.0"),
        ("compression_ratio: -1", "line 1, compression_ratio: the compression ratio must be above 0"),
        ("merged_base: kept", "line 1, merged_base: the merged base must be auto, stored, rebuilt or one of"),
        ("compression_ratio: 2/t", "line 1, compression_ratio: the compression ratio must be above 0"),
        (
            "budget: 9x9",
            "line 1, budget: the budget must be a number above 0 with an x behind it, such as 1.3x",
        ),
        (
            "budget: 1.3",
            "line 1, budget: the budget must be a number above 0 with an x behind it, such as 1.3x",
        ),
        ("budget: 2", "such as 1.3x, not '2'"),
        ("budget: \u0663x", "such as 1.3x"),
        ("budget: true", "line 1, budget: Input should be a valid string"),
        (
            "energy: 0.5\nout: s\nrank: 3",
            "line 1, energy: rank and energy choose the ranks in different ways",
        ),
        ("pretrained: ''", "line 1, pretrained: String should have at least 1 character"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/recipe.yaml, line ")
    assert told in str(caught.value)
