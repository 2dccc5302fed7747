"""The files beside a model that say how its inputs are prepared, in the words of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mass_serve.backbone.architecture import Architecture, WordEmbedding
from mass_serve.model_store.format.file_names import TOKENIZER_FILE
from mass_serve.model_store.format.preprocessing import DOWN, SHORTEST_EDGE, Preprocessing
from mass_serve.model_store.readers.image_processors import RESAMPLING
from mass_serve.model_store.readers.preprocessing import PREPROCESSOR_CONFIG
from mass_serve.model_store.readers.text_names import MODULES_FILE, POOLED, POOLING
from mass_serve.model_store.readers.vocabularies import BERT_TOKENS, CONFIG_FILE, ROBERTA_TOKENS
from mass_serve.model_store.writers.plain_model import PlainModel, TextInputs

_POOLING_FOLDER = f"1_{POOLING}"


def input_files(model: PlainModel) -> dict[str, Any]:
    """The JSON content of each file that says how inputs are prepared; tokenizer.json's is bytes."""
    if isinstance(model.inputs, Preprocessing):
        return {PREPROCESSOR_CONFIG: _image_processor(model.inputs)}
    return {
        TOKENIZER_FILE: model.inputs.tokenizer.content,
        CONFIG_FILE: _tokenizer_config(model.inputs, model.architecture),
    }


def pooling_files(architecture: Architecture) -> dict[str, Any]:
    """The JSON content of the files by which sentence-transformers makes one vector of a text.

    There are none of images, nor of a pooling that it does not have.
    """
    told = architecture.pooling.pooled.removesuffix("_without_norm")
    if not architecture.reads_text or told not in POOLED.values():
        return {}
    kinds = (("Transformer", ""), (POOLING, _POOLING_FOLDER))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]
    chosen = {key: pooled == told for key, pooled in POOLED.items()}
    config = {"word_embedding_dimension": architecture.width, **chosen}
    return {MODULES_FILE: modules, f"{_POOLING_FOLDER}/config.json": config}


def special_tokens(vocabulary: Mapping[str, int]) -> dict[str, str]:
    """The special tokens of BERT, or of RoBERTa, that a vocabulary has, by what they are for.

    Of both kinds those count that it has more of: a tokenizer.json does not say what a token is for.
    """
    found = [
        {purpose: token for purpose, token in tokens.items() if token in vocabulary}
        for tokens in (BERT_TOKENS, ROBERTA_TOKENS)
    ]
    return max(found, key=len)


def _image_processor(preprocessing: Preprocessing) -> dict[str, Any]:
    size, crop = preprocessing.size, preprocessing.crop
    square = {"height": size, "width": size}
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size} if preprocessing.resize == SHORTEST_EDGE else square,
        "resample": RESAMPLING.index(preprocessing.interpolation),
        "do_center_crop": True,
        "crop_size": {"height": crop, "width": crop},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    # No key of transformers, which halves an odd margin in its own way; the readers know it.
    rounding = preprocessing.crop_rounding
    return config if rounding == DOWN else {**config, "crop_rounding": rounding}


def _tokenizer_config(inputs: TextInputs, architecture: Architecture) -> dict[str, Any]:
    """What tokenizer.json does not say."""
    embedding = architecture.embedding
    assert isinstance(embedding, WordEmbedding)
    types = ["token_type_ids"] if embedding.num_types > 1 else []
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": inputs.max_tokens,
        "truncation_side": inputs.cut_end,
        "model_input_names": ["input_ids", *types, "attention_mask"],
        **special_tokens(inputs.tokenizer.vocabulary),
    }
