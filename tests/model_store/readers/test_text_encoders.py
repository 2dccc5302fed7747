"""Text encoders are read as transformers computes them: every family, lengths and sizes, padded or packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mass_serve.backbone import DenseWeights, Packed, run
from mass_serve.engine.loading import classification_head
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.task_heads import read_labelled_head
from tests import texts

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "minilm": ("Bert", {"hidden_size": 40, "num_attention_heads": 5, "num_hidden_layers": 6}),
    "bert, tanh gelu": ("Bert", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-6, "type_vocab_size": 3}),
    "bert, one type": ("Bert", {"type_vocab_size": 1}),
    "distilbert": ("DistilBert", {}),
    "distilbert, one block": ("DistilBert", {"n_layers": 1, "activation": "gelu"}),
    "roberta": ("Roberta", {}),
    "roberta, other padding": ("Roberta", {"pad_token_id": 4, "max_position_embeddings": 90}),
    "xlm-roberta": ("XLMRoberta", {"num_attention_heads": 3}),
    "modernbert": ("ModernBert", {}),
    "modernbert, mean, biases": (
        "ModernBert",
        {
            **{"classifier_pooling": "mean", "attention_bias": True, "norm_bias": True, "mlp_bias": True},
            **{"classifier_bias": True, "classifier_activation": "silu", "num_attention_heads": 2},
        },
    ),
    "modernbert, every second block": (
        "ModernBert",
        {"layer_types": ["full_attention", "sliding_attention"] * 2, "num_hidden_layers": 4},
    ),
}


def _parameters(checkpoint: Checkpoint) -> DenseWeights:
    names = checkpoint.architecture.parameter_shapes()
    return DenseWeights({name: checkpoint.parameter(name).float() for name in names})


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_a_classifier_gives_the_logits_that_transformers_gives(case: str, tmp_path: Path) -> None:
    kind, changes = CASES[case]
    model = texts.make_model(kind, "ForSequenceClassification", num_labels=3, **changes)
    model.save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    own = read_labelled_head("guard", checkpoint, None, None)
    assert own.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    batch = texts.texts(pairs=kind == "Bert" and changes.get("type_vocab_size", 2) > 1)
    embeddings = run(checkpoint.architecture, _parameters(checkpoint), batch.packed).embedding
    found = classification_head(own.head).logits(embeddings)
    torch.testing.assert_close(found, model(**batch.padded(model)).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_a_classifier_of_tokens_gives_the_logits_that_transformers_gives(case: str, tmp_path: Path) -> None:
    kind, changes = CASES[case]
    model = texts.make_model(kind, "ForTokenClassification", num_labels=3, **changes)
    model.save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    own = read_labelled_head("pii", checkpoint, None, None)
    assert own.head.each_token
    batch = texts.texts(pairs=kind == "Bert" and changes.get("type_vocab_size", 2) > 1)
    states = run(checkpoint.architecture, _parameters(checkpoint), batch.packed, stop="states").states
    assert isinstance(states, Packed)
    wanted = model(**batch.padded(model)).logits
    for found, of_text in zip(states, wanted, strict=True):
        logits = classification_head(own.head).logits(found)
        torch.testing.assert_close(logits, of_text[: len(found)], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_classifier_of_tokens_may_have_a_pooler_that_it_does_not_use(tmp_path: Path) -> None:
    model = texts.make_model("Bert", "ForTokenClassification", num_labels=3)
    model.bert = texts.make_model("Bert")  # as earlier versions made and saved it
    model.save_pretrained(tmp_path)
    own = read_labelled_head("pii", Checkpoint.open(tmp_path), None, None)
    assert own.head.hidden is None
    assert torch.equal(own.head.tensors["weight"], model.classifier.weight)


@pytest.mark.parametrize("kind", texts.CONFIGS)
@torch.inference_mode()
def test_the_bare_encoder_is_the_classifiers(kind: str, tmp_path: Path) -> None:
    base, classifier = (
        texts.make_model(kind),
        texts.make_model(kind, "ForSequenceClassification", num_labels=3),
    )
    classifier.base_model.load_state_dict(base.state_dict(), strict=False)
    base.save_pretrained(tmp_path / "base")
    classifier.save_pretrained(tmp_path / "classifier")
    batch = texts.texts((5, 12)).packed
    found = [
        run(own.architecture, _parameters(own), batch).embedding
        for own in (Checkpoint.open(tmp_path / "base"), Checkpoint.open(tmp_path / "classifier"))
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", [kind for kind in texts.CONFIGS if kind != "XLMRoberta"])
def test_a_model_of_masked_words_is_read_without_its_head(kind: str, tmp_path: Path) -> None:
    texts.make_model(kind, "ForMaskedLM").save_pretrained(tmp_path)
    assert Checkpoint.open(tmp_path).classifier() is None


def _sentence_transformer(folder: Path, modules: list[str], **modes: bool) -> None:
    texts.make_model("Bert").save_pretrained(folder)
    listed = [
        {"idx": index, "name": str(index), "path": "" if kind == "Transformer" else f"{index}_{kind}"}
        | {"type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 48} | modes))


@torch.inference_mode()
def test_a_sentence_transformer_is_pooled_by_the_mean_over_real_tokens(tmp_path: Path) -> None:
    _sentence_transformer(tmp_path, ["Transformer", "Pooling", "Normalize"], pooling_mode_mean_tokens=True)
    checkpoint, batch = Checkpoint.open(tmp_path), texts.texts()
    model = texts.make_model("Bert")
    padded = batch.padded(model)
    mask = padded["attention_mask"].unsqueeze(2)
    wanted = (model(**padded).last_hidden_state * mask).sum(1) / mask.sum(1)
    found = run(checkpoint.architecture, _parameters(checkpoint), batch.packed).embedding
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("modules", "modes", "message"),
    [
        (["Transformer", "Dense", "Pooling"], {}, "a module of the kind Dense is not served"),
        (["Transformer"], {}, "has no module of the kind Pooling"),
        (["Transformer", "Pooling"], {"pooling_mode_max_tokens": True}, "found pooling_mode_max_tokens"),
        (["Transformer", "Pooling"], {}, "must be true, found none"),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "found pooling_mode_cls_token, pooling_mode_mean_tokens",
        ),
    ],
)
def test_other_ways_from_tokens_to_a_vector_are_refused(
    modules: list[str], modes: dict[str, bool], message: str, tmp_path: Path
) -> None:
    _sentence_transformer(tmp_path, modules, **modes)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("path", ["../elsewhere", "", "1_Pooling/..", "a\nb"])
def test_a_pooling_is_read_from_the_models_own_folder_alone(path: str, tmp_path: Path) -> None:
    _sentence_transformer(tmp_path, ["Transformer", "Pooling"], pooling_mode_mean_tokens=True)
    modules = [{"type": "sentence_transformers.models.Pooling", "path": path}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="must name the folder of its Pooling in its own folder"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("Bert", {"position_embedding_type": "relative_key"}, "position_embedding_type must be 'absolute'"),
        ("Bert", {"is_decoder": True}, "is_decoder is true, and a store has encoders alone"),
        ("Bert", {"hidden_act": "relu"}, "hidden_act must be .*, found 'relu'"),
        ("Bert", {"vocab_size": 0}, "vocabulary"),
        ("Bert", {"vocab_size": "many"}, "vocabulary"),
        ("Bert", {"num_attention_heads": 5}, "width 48 is not a multiple of 5 attention heads"),
        ("Bert", {"type_vocab_size": True}, "types"),
        ("Roberta", {"pad_token_id": "x"}, "pad_token_id must be a whole number, found 'x'"),
        ("Roberta", {"pad_token_id": 100}, "max_tokens"),
        ("DistilBert", {"activation": "relu"}, "hidden_act must be .*, found 'relu'"),
        ("ModernBert", {"local_attention": 0}, "local_attention must be a whole number above 0, found 0"),
        ("ModernBert", {"classifier_pooling": "max"}, "classifier_pooling must be cls or mean, found 'max'"),
        ("ModernBert", {"classifier_activation": "mish"}, "classifier_activation must be .*, found 'mish'"),
        (
            "ModernBert",
            {"layer_types": ["full_attention"] * 4 + ["sliding_attention"]},
            "layer_types must be",
        ),
        (
            "ModernBert",
            {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
            "rope_parameters.full_attention must be of rope_type 'default'",
        ),
        (
            "ModernBert",
            {"rope_parameters": None, "rope_scaling": {"factor": 2}},
            "rope_scaling is not served",
        ),
        (
            "ModernBert",
            {"rope_parameters": None, "global_rope_theta": "far"},
            "global_rope_theta must be a number",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    texts.make_model(kind, "ForSequenceClassification", num_labels=3).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message) as refused:
        Checkpoint.open(tmp_path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2", "t5", "electra", "gpt2"])
def test_other_models_are_refused_by_name(model_type: str, tmp_path: Path) -> None:
    texts.make_model("Bert").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(CheckpointError, match=f"model_type is '{model_type}', but only .*ModernBERT"):
        Checkpoint.open(tmp_path)


def test_configurations_of_older_versions_say_it_by_numbers(tmp_path: Path) -> None:
    texts.make_model("ModernBert").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    newer, config = Checkpoint.open(tmp_path).architecture, json.loads(path.read_text())
    del config["layer_types"], config["rope_parameters"]
    older = {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    path.write_text(json.dumps(config | older))
    assert Checkpoint.open(tmp_path).architecture == newer


def test_a_classifiers_hidden_layer_must_be_whole(tmp_path: Path) -> None:
    texts.make_model("DistilBert", "ForSequenceClassification", num_labels=3).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["pre_classifier.weight"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"the hidden layer of a head needs dense\.weight, dense\.bias"):
        read_labelled_head("guard", Checkpoint.open(tmp_path), None, None)


@pytest.mark.parametrize(
    ("kind", "query"), [("Bert", "query"), ("Roberta", "query"), ("DistilBert", "q_lin")]
)
@pytest.mark.parametrize("what", ["Model", "ForSequenceClassification"])
def test_an_adapter_says_that_its_classifier_is_for_each_token(
    kind: str, query: str, what: str, tmp_path: Path
) -> None:
    """As PEFT writes one of a `ForTokenClassification` over a base that was saved without that classifier."""
    base = texts.make_model(kind, what)
    base.save_pretrained(tmp_path / "base")
    prefix = base.base_model_prefix
    named = next(name for name, _ in base.base_model.named_modules() if name.endswith(f".{query}"))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"base_model.model.{prefix}.{named}.lora_A.weight": torch.randn(2, 48, generator=generator),
        f"base_model.model.{prefix}.{named}.lora_B.weight": torch.randn(48, 2, generator=generator),
        "base_model.model.classifier.weight": torch.randn(3, 48, generator=generator),
        "base_model.model.classifier.bias": torch.zeros(3),
    }
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "task_type": "TOKEN_CLS"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter" / "labels.json").write_text('["O", "B-PER", "I-PER"]')
    adapted = Checkpoint.open(tmp_path / "base").adapted(tmp_path / "adapter")
    found = read_labelled_head("pii", adapted, None, None)
    assert (found.head.each_token, found.head.hidden) == (True, None)
    assert torch.equal(found.head.tensors["weight"], tensors["base_model.model.classifier.weight"])
