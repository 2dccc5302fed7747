"""PEFT adapters of classifiers of texts: a store of them answers as what PEFT merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mass_serve.engine import Engine, TextQuery
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput
from tests import texts
from tests.model_store.readers.test_adapters import randomise

# The kind of model, what LoRA changes, and what of the classifier is trained whole: BERT has a pooler before.
CASES: list[tuple[str, list[str], list[str]]] = [
    ("Bert", ["query", "value", "intermediate.dense"], ["classifier", "pooler.dense"]),
    ("Bert", ["key"], ["classifier"]),
    ("Roberta", ["query", "key", "output.dense"], ["classifier"]),
    ("XLMRoberta", ["value", "intermediate.dense"], ["classifier"]),
    ("DistilBert", ["q_lin", "lin1", "out_lin"], ["classifier", "pre_classifier"]),
    ("ModernBert", ["Wqkv", "Wi", "Wo"], ["classifier", "head"]),
]


def save_adapter(folder: Path, base: Path, kind: str, seed: int, targets: list[str], saved: list[str]) -> Any:
    """Saves an adapter of a classifier of 3 classes over a base on disk, and returns what PEFT merges."""
    from peft import LoraConfig, get_peft_model

    classes: Any = getattr(transformers, f"{kind}ForSequenceClassification")
    model = classes.from_pretrained(base, num_labels=3)
    config = LoraConfig(task_type="SEQ_CLS", target_modules=targets, modules_to_save=saved, r=3, lora_alpha=4)
    adapted = get_peft_model(model, config)
    torch.manual_seed(seed)
    randomise(adapted)
    adapted.save_pretrained(folder)
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
