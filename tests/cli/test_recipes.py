"""Builds from recipes, and models by name, as a user gives them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mass_serve.model_store.store import Store
from tests.cli.test_stores import failure, run, run_json
from tests.model_store.sources.fake_hub import Repository, running_hub
from tests.models import Suite
from tests.server_processes import ROOT


def files_of(store: Path) -> dict[str, bytes]:
    """The bytes of a store by path; the lock is no part of it."""
    found = {
        path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()
    }
    found.pop(".lock", None)
    return found


@pytest.fixture
def recipe(suite: Suite, tmp_path: Path) -> Path:
    """A recipe in a folder of its own, with models beside it."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "base").symlink_to(suite.pretrained)
    for task in suite.tasks[:2]:
        (folder / task.name).symlink_to(task.checkpoint)
    (folder / "two.yaml").write_text(
        "pretrained: base\nout: two-tasks\nmode: balanced\ntop_k: 2\ntasks:\n"
        "  - {name: digits, checkpoint: digits, individual_accuracy: 0.9}\n"
        "  - {name: street, checkpoint: street}\n"
    )
    return folder / "two.yaml"


def test_a_store_from_a_recipe(recipe: Path) -> None:
    built = run_json("build", recipe)
    manifest = Store.open(recipe.parent / "two-tasks").manifest
    assert built["manifest"] == json.loads(manifest.to_bytes())
    assert (manifest.router.mode, manifest.router.top_k) == ("balanced", 2)
    assert [(task.name, task.individual_accuracy) for task in manifest.tasks] == [
        ("digits", 0.9),
        ("street", None),
    ]


def test_flags_override_a_recipe(recipe: Path, suite: Suite, tmp_path: Path) -> None:
    signs = suite.tasks[2].checkpoint
    flags = ("--out", tmp_path / "other", "--mode", "exact", "--individual-accuracy", "digits=0.5")
    run("build", recipe, *flags, "--task", f"signs={signs}", "--task", f"street={signs}")
    store = Store.open(tmp_path / "other")
    assert (store.manifest.router.mode, store.manifest.router.top_k) == ("exact", 2)
    assert [task.name for task in store.manifest.tasks] == ["digits", "street", "signs"]
    assert store.manifest.tasks[0].individual_accuracy == 0.5
    street, signs_entry = store.task("street"), store.task("signs")
    assert street.labels == signs_entry.labels, "the checkpoint that the flag gave"
    assert not (recipe.parent / "two-tasks").exists()


def test_flags_override_a_recipes_rule_for_ranks(recipe: Path, tmp_path: Path) -> None:
    """Though it goes by another name: a store has one."""
    recipe.write_text(recipe.read_text() + "energy: 0.9\n")
    run("build", recipe, "--out", tmp_path / "out", "--budget", "0.8x")
    rule = json.loads((tmp_path / "out" / "manifest.json").read_bytes())["rank_rule"]
    assert (rule["kind"], rule["times"]) == ("budget", 0.8)
    shown = run("inspect", tmp_path / "out")[0]
    assert "budget 0.8x" in shown
    assert re.search(r"│ digits .*│ \d+ to \d+ +│", shown)
    told = failure("build", recipe, "--out", tmp_path / "other", "--budget", "0.8x", "--rank", "4")
    assert "error: --rank and --budget choose the ranks in different ways: give one of them" in told
    recipe.write_text(recipe.read_text() + "rank: 4\n")
    assert "rank and energy choose the ranks in different ways" in failure("build", recipe)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "checkpoint: street",
            "checkpoint: streets",
            "line 7, tasks.1.checkpoint: {folder}/streets does not exist",
        ),
        (
            "checkpoint: street",
            "checkpoint: org/street",
            "if it is a model of the hub, name it hf:org/street",
        ),
        ("pretrained: base", "pretraned: base", "line 1, pretraned: unknown key; did you mean pretrained?"),
        ("pretrained: base\n", "", "--pretrained is missing: give it, or a recipe that has it"),
        ("out: two-tasks\n", "", "--out is missing"),
        ("name: street", "name: digits", "task digits is given twice"),
        ("mode: balanced", "mode: best", "line 3, mode: must be one of paper"),
        (
            "checkpoint: street",
            "checkpoint: street, head: {classnames: Carts, templates: Cars}",
            "line 7, tasks.1.head.classnames: {folder}/Carts is neither a file nor one of ",
        ),
        (
            "checkpoint: street",
            "checkpoint: street, head: {classnames: [a], templates: Cars}",
            "line 7, tasks.1.head: ",
        ),
    ],
)
def test_mistakes(recipe: Path, old: str, new: str, told: str) -> None:
    recipe.write_text(recipe.read_text().replace(old, new))
    assert told.format(folder=recipe.parent) in failure("build", recipe)
    assert not (recipe.parent / "two-tasks").exists()


def test_a_name_of_the_hub_is_not_fetched_for_want_of_a_folder(
    suite: Suite, store_of_two: Path, tmp_path: Path
) -> None:
    task = f"digits={suite.tasks[0].checkpoint}"
    name, told = "openai/clip-vit-base-patch32", "name it hf:openai/clip-vit-base-patch32"
    assert told in failure("build", "--pretrained", name, "--task", task, "--out", tmp_path / "s")
    assert told in failure(
        "build", "--pretrained", suite.pretrained, "--task", f"a={name}", "--out", tmp_path / "s"
    )
    assert told in failure("task", "add", store_of_two, "new", name)
    assert told in failure(
        "head", "--pretrained", name, "--classnames", "Cars", "--templates", "Cars", "--out", "x"
    )
    assert not (tmp_path / "s").exists()


def test_nothing_is_fetched_for_a_build_that_cannot_be(suite: Suite, store_of_two: Path) -> None:
    fetched = "hf:org/would-be-fetched"
    flags = ("build", "--pretrained", fetched)
    assert "there is a store at" in failure(*flags, "--task", f"a={fetched}", "--out", store_of_two)
    assert "task name 'a b' must be" in failure(*flags, "--task", f"a b={fetched}", "--out", store_of_two)
    assert "a store needs at least one task" in failure(*flags, "--out", store_of_two)
    assert "exists already" in failure("task", "add", store_of_two, "digits", fetched)
    assert suite.pretrained.exists()


def test_a_build_from_the_hub(suite: Suite, tmp_path: Path) -> None:
    """In a process of its own: the hub's library reads the environment when it is imported."""
    (tmp_path / "recipe.yaml").write_text(
        "pretrained: hf:org/base\nout: store\ntasks:\n"
        "  - {name: Digits, checkpoint: hf:org/digits@v1}\n  - {name: street, checkpoint: hf:org/street}\n"
    )
    with running_hub() as hub:
        hub.repositories["org/base"] = Repository(suite.pretrained)
        for task in suite.tasks[:2]:
            hub.repositories[f"org/{task.name}"] = Repository(task.checkpoint, revisions=("main", "v1"))
        variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_TOKEN": "hf_good"}
        hub.tokens.add("hf_good")
        done = subprocess.run(
            [sys.executable, "-m", "mass_serve.cli", "build", str(tmp_path / "recipe.yaml")],
            capture_output=True,
            text=True,
            env=os.environ | variables,
            cwd=ROOT,
        )
    assert done.returncode == 0, done.stderr
    assert "fetching hf:org/digits@v1: model.safetensors" in done.stderr
    manifest = Store.open(tmp_path / "store").manifest
    weights = hashlib.sha256((suite.tasks[0].checkpoint / "model.safetensors").read_bytes()).hexdigest()
    (origin,) = manifest.tasks[0].origins
    assert (origin.name, origin.revision) == ("hf:org/digits@v1", "1" * 40)
    assert origin.files["model.safetensors"] == weights
    assert manifest.pretrained_origin is not None
    assert (tmp_path / "hub" / "hub" / "models--org--base").is_dir(), "in the hub's own cache"


def test_task_add_and_eval_take_names(suite: Suite, store_of_two: Path, tmp_path: Path) -> None:
    signs = f"file://{suite.tasks[2].checkpoint}"
    assert "signs" in run_json("task", "add", store_of_two, "signs", signs, "--head", signs)["tasks"]
    assert "name it hf:a/b" in failure(
        "eval",
        store_of_two,
        tmp_path,
        *(part for task in ("digits", "street", "signs") for part in ("--finetuned", f"{task}=a/b")),
    )
