"""The files to fetch of a folder somewhere else: those that a reader takes."""

from __future__ import annotations

import pytest

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.sources.needed import needed_files

ADAPTER = ["adapter_config.json", "adapter_model.bin"]


@pytest.mark.parametrize("allow_pickle", [False, True])
def test_an_adapter_that_is_a_pickle_is_refused_before_it_is_fetched(allow_pickle: bool) -> None:
    with pytest.raises(
        CheckpointError, match=r"has no safetensors but adapter_model\.bin, .* safe_serializat"
    ):
        needed_files("hf:org/adapter", ADAPTER, allow_pickle)


def test_beside_a_head_the_pickle_of_an_adapter_stays_where_it_is() -> None:
    found = needed_files("hf:org/adapter", [*ADAPTER, "head.safetensors"], allow_pickle=True)
    assert found == ["adapter_config.json", "head.safetensors"]


def test_what_says_how_a_text_becomes_one_vector_is_fetched() -> None:
    pooling = ["modules.json", "1_Pooling/config.json"]
    others = ["2_Normalize", "1_Pooling", "1_Pooling/README.md", "onnx/config.json", "2_Dense/config.json"]
    found = needed_files("hf:org/texts", [*others, *pooling, "model.safetensors"], allow_pickle=False)
    assert found == [*pooling, "model.safetensors"]


def test_what_says_how_much_of_a_text_is_read_is_fetched() -> None:
    beside = ["tokenizer_config.json", "sentence_bert_config.json"]
    found = needed_files("hf:org/texts", ["README.md", *beside, "model.safetensors"], allow_pickle=False)
    assert found == [*beside, "model.safetensors"]
