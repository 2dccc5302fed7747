"""mass-serve head, from class names to answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.cli.test_stores import failure, run, run_json
from tests.models import perturb
from tests.text_models import save_clip, save_vocabulary


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


def test_heads_of_words_become_a_store_that_answers(clip: Path, tmp_path: Path) -> None:
    tuned = save_clip(tmp_path / "tuned")
    perturb(tuned, 1, 0.05)
    tuned.save_pretrained(tmp_path / "tuned")
    (tmp_path / "pets.txt").write_text("cat\ndog\n")
    (tmp_path / "prompts.json").write_text('["a photo of a {}.", "the {}"]')
    words = ("--classnames", tmp_path / "pets.txt", "--templates", tmp_path / "prompts.json")
    out, err = run("head", "--pretrained", clip, *words, "--out", tmp_path / "pets" / "head.safetensors")
    assert "pets/head.safetensors: classes 2, width 16, templates 2, logit scale" in out.replace("\n", "")
    assert "2/2" in err, "a progress bar"
    made = run_json(
        *("head", "--pretrained", clip, "--classnames", "Cars", "--templates", "cars"),
        *("--out", tmp_path / "cars.safetensors", "--labels", tmp_path / "cars.json"),
    )
    assert made["labels"] == str(tmp_path / "cars.json")
    assert (made["classes"], made["width"], made["templates"]) == (196, 16, 8)
    assert load_file(made["head"])["logit_scale"].item() == pytest.approx(made["logit_scale"])
    pets = tmp_path / "pets"
    run(
        *("build", "--pretrained", clip, "--out", tmp_path / "store"),
        *("--task", f"pets={tmp_path / 'tuned'}", "--task", f"cars={clip}"),
        *("--head", f"pets={pets / 'head.safetensors'}", "--labels", f"pets={pets / 'labels.json'}"),
        *("--head", f"cars={made['head']}", "--labels", f"cars={made['labels']}"),
    )
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "image.png")
    told = run("classify", tmp_path / "image.png", "--store", tmp_path / "store", "--task", "pets", "--json")
    answers = json.loads(told[0])
    assert json.dumps(answers).count('"cat"') + json.dumps(answers).count('"dog"') > 0


def test_words_and_a_tokenizer_that_lies_elsewhere(clip: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((clip / name).read_bytes())
    words = ("--classnames", "MNIST", "--templates", "MNIST")
    arguments = ("head", "--pretrained", bare, *words, "--out", tmp_path / "head.safetensors")
    assert "bare has neither tokenizer.json nor vocab.json and merges.txt" in failure(*arguments)
    save_vocabulary(tmp_path / "words")
    run(*arguments, "--tokenizer", tmp_path / "words")
    assert (tmp_path / "head.safetensors").exists()


def test_nothing_is_overwritten(clip: Path, tmp_path: Path) -> None:
    words = ("--classnames", "PCAM", "--templates", "PCAM")
    arguments = ("head", "--pretrained", clip, *words, "--out", tmp_path / "head.safetensors")
    labels = tmp_path / "labels.json"
    labels.write_text('["cat", "dog"]')
    assert "labels.json exists and holds other labels: choose another name" in failure(*arguments)
    kept = '["lymph node",\n\n"lymph node containing metastatic tumor tissue"]'
    labels.write_text(kept)
    run(*arguments)
    assert labels.read_text() == kept, "the same labels stay as they are"
    before = (tmp_path / "head.safetensors").read_bytes()
    assert "head.safetensors exists: remove it, or choose another name" in failure(*arguments)
    assert (tmp_path / "head.safetensors").read_bytes() == before


def test_what_fails_leaves_nothing_behind(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "head.safetensors"
    given = {"--pretrained": clip, "--classnames": "PCAM", "--templates": "PCAM", "--out": out}
    for flag, value, sentence in (
        ("--pretrained", tmp_path / "nowhere", "nowhere does not exist"),
        ("--classnames", "Carz", "Carz is neither a file nor one of "),
        ("--templates", "Carz", "Carz is neither a file nor one of "),
        ("--classnames", "clip-imagenet", "clip-imagenet has templates and no class names"),
        ("--tokenizer", tmp_path, "has neither tokenizer.json"),
    ):
        arguments = [part for pair in (given | {flag: value}).items() for part in pair]
        assert sentence in failure("head", *arguments)
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    taken = given | {"--out": tmp_path / "file" / "head.safetensors"}
    assert "file cannot be written: " in failure("head", *[part for pair in taken.items() for part in pair])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
