"""The tokenizer of a store of texts: named and hashed from the build on, and the same for every task."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mass_serve.engine import Engine
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError, IntegrityError, StoreError
from mass_serve.model_store.revisions import add_task, remove_task, rollback_task
from mass_serve.model_store.store import Store
from tests import texts

NAME = "tokenizer.json"
FORCED = BuildOptions(force=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> texts.Finetuned:
    return texts.finetuned(tmp_path_factory.mktemp("models"), "Bert")


@pytest.fixture
def store(models: texts.Finetuned, tmp_path: Path) -> Path:
    build(models.pretrained, models.tasks[:2], tmp_path / "store", FORCED)
    return tmp_path / "store"


def test_a_store_of_texts_has_its_tokenizer(store: Path) -> None:
    opened = Store.open(store)
    assert opened.manifest.files[NAME] == hashlib.sha256((store / NAME).read_bytes()).hexdigest()
    assert opened.load_tokenizer() == (store / NAME).read_bytes()
    assert opened.verify() == []
    tokenizer = Engine.load(str(store), device="cpu").tokenizer
    assert tokenizer is not None
    assert tokenizer.tokens("w10 w11").words[:, 0].tolist() == [2, 10, 11, 3]


def test_the_same_build_is_the_same_bytes(models: texts.Finetuned, store: Path, tmp_path: Path) -> None:
    build(models.pretrained, models.tasks[:2], tmp_path / "again", FORCED)
    assert (tmp_path / "again" / NAME).read_bytes() == (store / NAME).read_bytes()
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (store / "manifest.json").read_bytes()


def test_it_stays_while_tasks_come_and_go(models: texts.Finetuned, store: Path) -> None:
    before = (store / NAME).read_bytes()
    add_task(store, models.tasks[2], force=True)
    remove_task(store, "guard")
    rollback_task(store, "guard")
    assert (store / NAME).read_bytes() == before
    assert Store.open(store).verify() == []
    assert len(Engine.load(str(store), device="cpu").classify(["w10"], answer="each")) == 3


@pytest.mark.parametrize("harm", ["changed", "cut", "gone"])
def test_a_damaged_tokenizer_is_told(store: Path, harm: str) -> None:
    content = (store / NAME).read_bytes()
    if harm == "gone":
        (store / NAME).unlink()
    else:
        (store / NAME).write_bytes(content[:-1] if harm == "cut" else content.replace(b"w10", b"x10"))
    (damage,) = Store.open(store).verify()
    assert NAME in damage
    with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
        Engine.load(str(store), device="cpu")


def test_one_that_the_library_cannot_read_is_told(store: Path) -> None:
    """Whoever made the store may have had another version of the library."""
    texts.replace_tokenizer(store, b'{"model": {"type": "Future"}}')
    with pytest.raises(StoreError, match=r"tokenizer\.json in .* cannot be used: the library tokenizers"):
        Engine.load(str(store), device="cpu")


def test_one_with_marks_that_the_encoder_does_not_have_is_told(store: Path) -> None:
    content = json.loads((store / NAME).read_bytes())
    content["post_processor"]["cls"][1] = 5000
    texts.replace_tokenizer(store, json.dumps(content).encode())
    with pytest.raises(
        StoreError, match=r"cannot be used: it makes \[\[5000, 0\].* the encoder has 97 tokens"
    ):
        Engine.load(str(store), device="cpu")


def test_a_manifest_without_it_is_refused(store: Path) -> None:
    manifest = store / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"{NAME}"', '"tokeniser.json"'))
    with pytest.raises(StoreError, match=r"files: must be pretrained\.safetensors, tokenizer\.json"):
        Store.open(store)


def test_a_model_without_a_tokenizer_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    models = texts.finetuned(tmp_path, "Bert")
    (models.pretrained / "vocab.txt").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        build(models.pretrained, models.tasks, tmp_path / "store", FORCED)
    assert not (tmp_path / "store").exists()


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(tmp_path: Path) -> None:
    models = texts.finetuned(tmp_path, "Bert")
    with (models.pretrained / "vocab.txt").open("a") as file:
        file.write("w97\n")
    with pytest.raises(CheckpointError, match="ids up to 97, and the model embeds 97 tokens"):
        build(models.pretrained, models.tasks, tmp_path / "store", FORCED)


def test_a_tokenizer_of_far_fewer_tokens_than_the_model_has_is_refused(tmp_path: Path) -> None:
    models = texts.finetuned(tmp_path, "Bert", vocab_size=1000)
    with pytest.raises(CheckpointError, match="has 97 tokens, and the model embeds 1000: it is of another"):
        build(models.pretrained, models.tasks, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    build(models.pretrained, models.tasks, tmp_path / "store", FORCED)
    assert Store.open(tmp_path / "store").verify() == []


def test_a_tokenizer_that_is_too_large_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mass_serve.model_store.store.MOST_TOKENIZER_BYTES", 1000)
    with pytest.raises(IntegrityError, match=r"tokenizer\.json has [\d,]+ bytes, and at most 1,000 are read"):
        Engine.load(str(store), device="cpu")


def test_a_task_with_other_tokens_is_refused(tmp_path: Path) -> None:
    models = texts.finetuned(tmp_path, "Bert")
    folder = models.tasks[1].checkpoint
    texts.save_tokenizer(folder)
    build(models.pretrained, models.tasks, tmp_path / "store", FORCED)
    (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text().replace("w50", "other"))
    with pytest.raises(CheckpointError, match=r"domain: its tokenizer has 97 tokens, .* differ in 'other'"):
        build(models.pretrained, models.tasks, tmp_path / "second", FORCED)
    remove_task(tmp_path / "store", "domain")
    with pytest.raises(CheckpointError, match="task domain: its tokenizer has 97 tokens"):
        add_task(tmp_path / "store", models.tasks[1], replace=True, force=True)
