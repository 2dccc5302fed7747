"""The benchmark's recipes, from the files of exactly their names that the generator makes, in small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from examples.clip_benchmark.generate import configuration, generate, generate_images
from examples.clip_benchmark.images import DATA_SETS, write_images
from examples.clip_benchmark.recipes import FOLDER, TASKS, finetuned_name, pretrained_name, recipes
from mass_serve.evaluation.inputs.class_folders import class_of_folders
from mass_serve.model_store.recipes import HeadWords, ModelName, read_recipe
from mass_serve.model_store.store import Store
from mass_serve.model_store.words import read_class_names, read_templates
from mass_serve.router import MODE_NAMES
from tests.server_processes import ROOT

EIGHT = FOLDER / "vit-b-32-8-tasks.yaml"


def test_the_recipes_are_as_they_are_written() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.yaml")} == recipes()


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_can_be_read(name: str) -> None:
    recipe = read_recipe(FOLDER / name, MODE_NAMES)
    assert len(recipe.tasks) == int(name.split("-")[3])
    for task in recipe.tasks:
        assert isinstance(task.head, HeadWords)
        assert isinstance(task.head.classnames, ModelName)
        assert isinstance(task.head.templates, ModelName)
        assert read_class_names(task.head.classnames.text)
        assert read_templates(task.head.templates.text)


@pytest.mark.parametrize(
    ("encoder", "width", "depth", "projection"),
    [("vit-b-32", 768, 12, 512), ("vit-b-16", 768, 12, 512), ("vit-l-14", 1024, 24, 768)],
)
def test_the_sizes_are_the_published_ones(encoder: str, width: int, depth: int, projection: int) -> None:
    config = configuration(encoder)
    vision, text = config.vision_config, config.text_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.image_size) == (width, depth, 224)
    assert str(vision.patch_size) == encoder.rpartition("-")[2]
    assert (config.projection_dim, text.hidden_size, text.num_hidden_layers) == (projection, projection, 12)
    assert (vision.intermediate_size, vision.num_attention_heads) == (4 * width, width // 64)


def snapshot(hub: Path, name: str) -> Path:
    """The folder that the hub's client finds a model in."""
    (folder,) = (hub / "hub" / f"models--{name.replace('/', '--')}" / "snapshots").iterdir()
    return folder


@pytest.mark.parametrize(
    ("encoder", "weights"), [("vit-b-32", "pytorch_model.bin"), ("vit-l-14", "model.safetensors")]
)
def test_names_in_the_files_are_the_published_ones(tmp_path: Path, encoder: str, weights: str) -> None:
    """They are those of transformers 4: today's leaves a prefix and buffers out, and makes no pickles."""
    generate(encoder, 1, tmp_path, tiny=True)
    base = snapshot(tmp_path, pretrained_name(encoder))
    assert {path.name for path in base.iterdir()} == {
        *("config.json", "preprocessor_config.json", "vocab.json", "merges.txt", weights)
    }
    assert json.loads((base / "config.json").read_text())["text_config"]["eos_token_id"] == 2
    tuned = snapshot(tmp_path, finetuned_name(encoder, "SUN397"))
    assert {path.name for path in tuned.iterdir()} == {"config.json", "model.safetensors"}
    keys = load_file(tuned / "model.safetensors").keys()
    assert all(key.startswith("vision_model.") for key in keys)
    assert "vision_model.pre_layrnorm.weight" in keys


def rows(labels: Iterable[int]) -> Iterator[dict[str, object]]:
    """What a data set gives, of images in a form that PNG does not have."""
    for label in labels:
        yield {"jpg": Image.new("CMYK", (4, 4), (label, 0, 0, 0)), "cls": label}


def test_images_of_data_sets_are_what_eval_reads(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(12)]
    count = write_images(rows([11, 3, 3, 0, 3]), DATA_SETS["FER2013"], len(names), tmp_path / "task", 2)
    folders = sorted(path.name for path in (tmp_path / "task").iterdir())
    assert class_of_folders(folders, names) == {f"{number:02}": number for number in range(12)}
    images = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert images == ["task/00/0.png", "task/03/0.png", "task/03/1.png", "task/11/0.png"]
    assert count == 4
    assert DATA_SETS.keys() == TASKS.keys()


def test_a_label_that_the_head_does_not_have_is_named(tmp_path: Path) -> None:
    data_set = replace(DATA_SETS["EMNIST"], image="jpg", label="cls")
    with pytest.raises(ValueError, match="emnist_letters has a label 26, expected 0 to 25"):
        write_images(rows([25, 26]), data_set, 26, tmp_path / "task", None)


def command(home: Path, *arguments: object) -> str:
    """What a command prints that finds its models in the hub's cache in `home` alone."""
    variables = {"HF_HOME": str(home / "hub"), "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "mass_serve.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_headline_experiment_runs_in_two_commands(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    generate("vit-b-32", 8, tmp_path / "hub", tiny=True)
    generate_images(8, tmp_path / "images")
    command(tmp_path, "build", EIGHT, "--out", tmp_path / "store")
    manifest = Store.open(tmp_path / "store").manifest
    assert [task.name for task in manifest.tasks] == list(TASKS)[:8]
    assert manifest.tasks[1].labels[0] == "AM General Hummer SUV 2000"
    assert manifest.pretrained_origin is not None
    assert manifest.pretrained_origin.name == "hf:openai/clip-vit-base-patch32"
    assert manifest.tasks[1].origins[0].name == "hf:tanganke/clip-vit-base-patch32_stanford-cars"
    figures = json.loads(command(tmp_path, "eval", tmp_path / "store", tmp_path / "images", "--json", "-"))
    assert figures["tasks"].keys() == set(list(TASKS)[:8])
    assert figures["tasks"]["SUN397"]["images"] == 397
    command(tmp_path, "build", EIGHT, "--out", tmp_path / "again")
    stores = [tmp_path / "store", tmp_path / "again"]
    first, again = ({path.name: path.read_bytes() for path in store.glob("*.*")} for store in stores)
    assert first == again, "the same recipe is the same bytes"
