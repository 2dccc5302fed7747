"""Forms of encoders of texts: DistilBERT, RoBERTa, BERT and ModernBERT."""

from __future__ import annotations

from typing import Any

from mass_serve.backbone.architecture import Architecture, WordEmbedding, bias_of
from mass_serve.model_store.readers.bert import Bert
from mass_serve.model_store.readers.distilbert import AS_BERT, DistilBert
from mass_serve.model_store.readers.family import Description, Source
from mass_serve.model_store.readers.modernbert import CLASSIFIER_POOLINGS, HEAD_ACTIVATIONS, ModernBert
from mass_serve.model_store.readers.roberta import Roberta, padding_before
from mass_serve.model_store.readers.transformers_names import ACTIVATION_NAMES
from mass_serve.model_store.readers.vocabularies import ROBERTA_TOKENS
from mass_serve.model_store.writers.form import Form
from mass_serve.model_store.writers.input_files import special_tokens
from mass_serve.model_store.writers.plain_model import PlainModel, TextInputs

_TOKENS = "output.last_hidden_state"
_MEAN = (
    f"({_TOKENS} * inputs['attention_mask'][..., None]).sum(1)"
    " / inputs['attention_mask'].sum(1, keepdim=True)"
)
_EMBEDDINGS = {"class": f"{_TOKENS}[:, 0]", "mean": _MEAN}


class TextForm(Form):
    """A form of models of texts."""

    stem: str  # of the classes' names

    def class_name(self, model: PlainModel, *, classifies: bool) -> str:
        if not classifies:
            return f"{self.stem}Model"
        return f"{self.stem}For{'Token' if model.classifies_tokens else 'Sequence'}Classification"

    def embedding(self, model: PlainModel) -> str | None:
        pooling = model.architecture.pooling
        wanted = pooling.pooled.removesuffix("_without_norm")
        return None if pooling.projection_dim else _EMBEDDINGS.get(wanted)


class BertForm(TextForm):
    """BERT, whose classifier takes its tanh pooler."""

    family = Bert()
    stem = "Bert"

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:  # noqa: ARG002
        config = _sizes(model)
        return config and {"model_type": "bert", **config}


class DistilBertForm(TextForm):
    """DistilBERT, which has other words for BERT's sizes, one type of token, and one epsilon."""

    family = DistilBert()
    stem = "DistilBert"

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:  # noqa: ARG002
        config = _sizes(model)
        if config is None or config.pop("type_vocab_size") > 1:
            return None
        del config["layer_norm_eps"]
        return {"model_type": "distilbert"} | {AS_BERT.get(name, name): size for name, size in config.items()}


class RobertaForm(TextForm):
    """RoBERTa, which counts positions from behind its padding's id; of one type of token."""

    family = Roberta()
    stem = "Roberta"

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:  # noqa: ARG002
        config = _sizes(model)
        if config is None or config["type_vocab_size"] > 1 or not _is_robertas(model):
            return None
        config["max_position_embeddings"] += padding_before(config["pad_token_id"])
        return {"model_type": "roberta", **config}


class ModernBertForm(TextForm):
    """ModernBERT; biases that its checkpoint lacked are zeros."""

    family = ModernBert()
    stem = "ModernBert"

    def config(self, model: PlainModel, *, classifies: bool) -> dict[str, Any] | None:
        config, block = _sizes(model), model.architecture.block
        if config is None or block.rotary is None:
            return None
        for name in ("hidden_act", "type_vocab_size"):
            del config[name]
        config |= {
            "model_type": "modernbert",
            "hidden_activation": ACTIVATION_NAMES.get(block.activation),
            "norm_eps": config.pop("layer_norm_eps"),
            "local_attention": 2 * block.rotary.reach,
            "global_attn_every_n_layers": block.rotary.global_every,
            "global_rope_theta": block.rotary.global_theta,
            "local_rope_theta": block.rotary.local_theta,
            "attention_bias": block.qkv_has_bias,
            **dict.fromkeys(("norm_bias", "mlp_bias", "classifier_bias"), True),
            # Those of the published models by default.
            **dict.fromkeys(("bos_token_id", "cls_token_id"), _token_id(model, "cls_token")),
            **dict.fromkeys(("eos_token_id", "sep_token_id"), _token_id(model, "sep_token")),
        }
        return config | _prediction_head(model) if classifies else config

    def sources(self, architecture: Architecture, description: Description) -> dict[str, Source]:  # noqa: ARG002
        sources = self.family.all_sources(architecture)
        if not architecture.block.qkv_has_bias:
            for block in architecture.blocks():
                del sources[bias_of(block.out)]
        return sources


def _prediction_head(model: PlainModel) -> dict[str, Any]:
    hidden = None if model.head is None else model.head.hidden
    names = {own: name for name, own in reversed(tuple(HEAD_ACTIVATIONS.items()))}
    poolings = {pooled: name for name, pooled in CLASSIFIER_POOLINGS.items()}
    activation = {} if hidden is None else {"classifier_activation": names[hidden.activation]}
    return {"classifier_pooling": poolings.get(model.architecture.pooling.pooled), **activation}


def _sizes(model: PlainModel) -> dict[str, Any] | None:
    """The sizes in BERT's words; None for what reads no texts."""
    embedding, block = model.architecture.embedding, model.architecture.block
    if not isinstance(embedding, WordEmbedding) or not isinstance(model.inputs, TextInputs):
        return None
    return {
        "vocab_size": embedding.vocabulary,
        "hidden_size": block.width,
        "num_hidden_layers": model.architecture.depth,
        "num_attention_heads": block.num_attention_heads,
        "intermediate_size": block.mlp_width,
        "hidden_act": ACTIVATION_NAMES.get(block.activation),
        "max_position_embeddings": embedding.max_tokens,
        "type_vocab_size": embedding.num_types,
        "layer_norm_eps": block.layer_norm_eps,
        "pad_token_id": _token_id(model, "pad_token"),
    }


def _token_id(model: PlainModel, purpose: str) -> int | None:
    assert isinstance(model.inputs, TextInputs)
    vocabulary = model.inputs.tokenizer.vocabulary
    token = special_tokens(vocabulary).get(purpose)
    return None if token is None else vocabulary[token]


def _is_robertas(model: PlainModel) -> bool:
    """Tells whether the tokens around a text are RoBERTa's: else BERT's form says the same."""
    assert isinstance(model.inputs, TextInputs)
    return special_tokens(model.inputs.tokenizer.vocabulary).get("pad_token") == ROBERTA_TOKENS["pad_token"]


TEXT_FORMS: tuple[Form, ...] = (RobertaForm(), DistilBertForm(), BertForm(), ModernBertForm())
