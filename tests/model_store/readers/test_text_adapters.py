"""PEFT adapters of classifiers of texts: a store of them answers as what PEFT merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mass_serve.engine import Engine, TextQuery
from mass_serve.merging import ThinDelta
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.readers.checkpoint import Checkpoint
from tests import texts
from tests.model_store.readers.test_adapters import randomise

# The kind of model, what LoRA changes, and what of the classifier is trained whole: BERT has a pooler before.
# Tables of words, positions and types are changed, too.
CASES: list[tuple[str, list[str], list[str]]] = [
    ("Bert", ["query", "value", "intermediate.dense"], ["classifier", "pooler.dense"]),
    ("Bert", ["key"], ["classifier"]),
    ("Roberta", ["query", "key", "output.dense"], ["classifier"]),
    ("XLMRoberta", ["value", "intermediate.dense"], ["classifier"]),
    ("DistilBert", ["q_lin", "lin1", "out_lin"], ["classifier", "pre_classifier"]),
    ("ModernBert", ["Wqkv", "Wi", "Wo"], ["classifier", "head"]),
    ("Bert", ["query", "word_embeddings"], ["classifier", "pooler.dense"]),
    ("Bert", ["word_embeddings", "position_embeddings", "token_type_embeddings"], ["classifier"]),
    ("Roberta", ["word_embeddings"], ["classifier"]),
    ("ModernBert", ["Wqkv", "tok_embeddings"], ["classifier", "head"]),
]
# How a change of the table of words is kept: PEFT's options, and whether the table as it was is saved, too.
TABLES: dict[str, tuple[dict[str, Any], bool]] = {
    "LoRA": ({}, False),
    "rsLoRA": ({"use_rslora": True}, False),
    "DoRA": ({"use_dora": True}, False),
    "an alpha of its own": ({"alpha_pattern": {"word_embeddings": 7}}, False),
    "with what it changes": ({}, True),
    "trained whole": ({}, False),
}
WORDS = "word_embedding.weight"


def save_adapter(
    folder: Path,
    base: Path,
    kind: str,
    seed: int,
    targets: list[str],
    saved: list[str],
    *,
    with_tables: bool | str = "auto",
    **options: Any,
) -> Any:
    """Saves an adapter of a classifier of 3 classes over a base on disk, and returns what PEFT merges."""
    from peft import LoraConfig, get_peft_model

    classes: Any = getattr(transformers, f"{kind}ForSequenceClassification")
    model = classes.from_pretrained(base, num_labels=3)
    config = LoraConfig(
        task_type="SEQ_CLS", target_modules=targets, modules_to_save=saved, r=3, lora_alpha=4, **options
    )
    adapted = get_peft_model(model, config)
    torch.manual_seed(seed)
    randomise(adapted)
    adapted.save_pretrained(folder, save_embedding_layers=with_tables)
    model.config.id2label = {row: f"{folder.name} {row}" for row in range(3)}
    model.config.save_pretrained(folder)
    return adapted.merge_and_unload().eval()


@pytest.mark.optional("peft")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("kind", "targets", "saved"), CASES)
@torch.inference_mode()
def test_a_store_of_adapters_answers_as_what_peft_merges(
    kind: str, targets: list[str], saved: list[str], tmp_path: Path
) -> None:
    texts.make_model(kind).save_pretrained(tmp_path / "base")
    texts.save_tokenizer(tmp_path / "base")
    merged = {
        name: save_adapter(tmp_path / name, tmp_path / "base", kind, seed, targets, saved)
        for seed, name in enumerate(("guard", "domain"))
    }
    tasks = [TaskInput(name, tmp_path / name) for name in merged]
    build(tmp_path / "base", tasks, tmp_path / "store", BuildOptions(block_dtype="float32", force=True))
    engine, batch = Engine.load(str(tmp_path / "store"), device="cpu"), texts.texts((3, 40, 17, 80))
    for task, model in merged.items():
        assert engine.tasks[task].labels == (f"{task} 0", f"{task} 1", f"{task} 2")
        answers = engine.classify_batch([TextQuery(words, (task,)) for words in batch.words]).all_answers()
        found = torch.stack([answer.probabilities for answer in answers])
        wanted = model(**batch.padded(model)).logits.softmax(1)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.optional("peft")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", TABLES)
@torch.inference_mode()
def test_a_changed_table_of_words_is_what_peft_merges(name: str, tmp_path: Path) -> None:
    options, with_tables = TABLES[name]
    texts.make_model("Bert").save_pretrained(tmp_path / "base")
    targets, saved = ["query", "word_embeddings"], ["classifier", "pooler.dense"]
    if name == "trained whole":
        saved.append(targets.pop())
    merged = save_adapter(
        *(tmp_path / "guard", tmp_path / "base", "Bert", 1, targets, saved),
        with_tables=with_tables,
        **options,
    )
    base = Checkpoint.open(tmp_path / "base")
    before, wanted = base.parameter(WORDS), merged.bert.embeddings.word_embeddings.weight
    tuned = base.adapted(tmp_path / "guard")
    torch.testing.assert_close(tuned.parameter(WORDS), wanted, atol=1e-6, rtol=1e-6)
    change = tuned.change(WORDS, before)
    # What DoRA scales, and what was saved whole, is no product of thin matrices.
    is_thin = not with_tables and not options.get("use_dora") and name != "trained whole"
    assert isinstance(change, ThinDelta) == is_thin
    if isinstance(change, ThinDelta):
        vectors = change.singular_vectors()
        assert vectors.rank == 3
        change = (vectors.u * vectors.s) @ vectors.vh
    torch.testing.assert_close(change.float(), wanted - before, atol=1e-5, rtol=1e-4)
