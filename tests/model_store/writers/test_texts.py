"""Exported encoders of texts give what the server gives: every form, through transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from mass_serve.engine import Engine
from mass_serve.model_store.exporting import task_model
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.writers import write_model
from tests import models, texts
from tests.model_store.writers.exports import built, logits_of, prepared, served_logits
from tests.tokenizers_on_disk import save_byte_pairs

TEXTS = ("w7 w9 w20 w33", "w50", "w11 w12 w13 w14 w15 w16 w17")
# The tokenizers of all of them here are BERT's.
KINDS = ("Bert", "DistilBert", "ModernBert")


def _assert_same_logits(store: Any, task: str, out: Path, class_name: str, given: tuple[str, ...]) -> None:
    logits = logits_of(out, class_name, given)
    torch.testing.assert_close(logits, served_logits(store, task, given), atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_gives_the_servers_logits(kind: str, tmp_path: Path) -> None:
    made = texts.finetuned(tmp_path, kind, names=("guard", "domain"), multi_label=("domain",))
    store = built(made, tmp_path / "store")
    for task in store.manifest.tasks:
        written = write_model(task_model(store, task.name), tmp_path / "out" / task.name)
        assert written.class_name == f"{kind}ForSequenceClassification"
        assert not written.head_file
        _assert_same_logits(store, task.name, written.folder, written.class_name, TEXTS)
        config = json.loads((written.folder / "config.json").read_text())
        assert config["problem_type"].startswith("multi" if task.head.is_multi_label else "single")
        assert tuple(config["id2label"].values()) == task.labels


@pytest.mark.parametrize("kind", KINDS)
def test_classifiers_of_tokens_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    made = texts.finetuned(tmp_path, kind, names=("guard",), of_tokens=("people",))
    # Whole ranks: what the blocks keep is what the fine-tuned model is.
    store = built(made, tmp_path / "store", compression_ratio=1.0, block_dtype="float32")
    written = write_model(task_model(store, "people"), tmp_path / "out")
    assert written.class_name == f"{kind}ForTokenClassification"
    inputs = prepared(written.folder, TEXTS)
    with torch.inference_mode():
        wanted: Tensor = made.models["people"](**inputs).logits
    mask = inputs["attention_mask"].bool()
    logits = logits_of(written.folder, written.class_name, TEXTS)
    torch.testing.assert_close(logits[mask], wanted[mask], atol=1e-3, rtol=1e-3)


def test_roberta_with_a_tokenizer_of_its_own_is_roberta(tmp_path: Path) -> None:
    """Its positions begin behind the id of the padding."""
    made = texts.finetuned(
        tmp_path, "Roberta", names=("guard", "domain"), of_tokens=("people",), vocab_size=400
    )
    for file in ("vocab.txt", "tokenizer_config.json"):
        (made.pretrained / file).unlink(missing_ok=True)
    config = (made.pretrained / "config.json").read_text()
    save_byte_pairs(made.pretrained)
    (made.pretrained / "config.json").write_text(config)
    store = built(made, tmp_path / "store")
    given = ("the cat sat", "running on the mat, unable", "café")
    for task, suffix in (("guard", "Sequence"), ("people", "Token")):
        written = write_model(task_model(store, task), tmp_path / "out" / task)
        assert written.class_name == f"RobertaFor{suffix}Classification"
        assert json.loads((written.folder / "config.json").read_text())["max_position_embeddings"] == 82
        if task == "guard":
            _assert_same_logits(store, task, written.folder, written.class_name, given)
        else:
            assert logits_of(written.folder, written.class_name, given).shape[-1] == len(texts.ENTITY_LABELS)


def test_a_mean_of_tokens_goes_with_sentence_transformers_files_and_a_head_beside_it(tmp_path: Path) -> None:
    base = texts.make_model("Bert")
    base.save_pretrained(tmp_path / "pretrained")
    texts.save_tokenizer(tmp_path / "pretrained")
    pooling = tmp_path / "pretrained" / "1_Pooling"
    pooling.mkdir()
    (pooling / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    kinds = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    kinds.append({"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"})
    (tmp_path / "pretrained" / "modules.json").write_text(json.dumps(kinds))
    tasks = []
    for seed, name in enumerate(("guard", "domain"), start=1):
        models.perturb(base, seed, 0.02)
        base.save_pretrained(tmp_path / name)
        for file in ("modules.json", "1_Pooling/config.json"):
            (tmp_path / name / file).parent.mkdir(exist_ok=True)
            (tmp_path / name / file).write_text((tmp_path / "pretrained" / file).read_text())
        models.save_head(tmp_path / name, 3, 48, seed, linear=seed % 2 == 0)
        tasks.append(TaskInput(name, tmp_path / name))
    store = built(models.Suite(tmp_path / "pretrained", tuple(tasks)), tmp_path / "store")
    assert store.manifest.backbone.pooling.pooled == "mean_without_norm"
    for task in store.manifest.tasks:
        written = write_model(task_model(store, task.name), tmp_path / "out" / task.name)
        assert (written.class_name, written.head_file) == ("BertModel", True)
        _assert_same_logits(store, task.name, written.folder, "BertModel", TEXTS)
    again = [TaskInput(name, tmp_path / "out" / name) for name in ("guard", "domain")]
    rebuilt = built(models.Suite(tmp_path / "pretrained", tuple(again)), tmp_path / "again")
    assert rebuilt.manifest.backbone == store.manifest.backbone


def test_a_pair_has_the_types_that_the_server_gives_it(tmp_path: Path) -> None:
    made = texts.finetuned(tmp_path, "Bert", names=("guard", "domain"))
    store = built(made, tmp_path / "store")
    write_model(task_model(store, "guard"), tmp_path / "out")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = tokenizer("w7 w8", "w9", return_tensors="pt")
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]
    model: Any = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "out")
    engine = Engine.load(str(tmp_path / "store"), device="cpu")
    (answer,) = engine.classify([("w7 w8", "w9")], tasks=["guard"])
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(**inputs).logits[0], answer.logits, atol=2e-4, rtol=1e-5)
