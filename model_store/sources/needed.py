"""Which files of a model's folder somewhere else a reader needs: few of many, and no pickle unasked."""

from __future__ import annotations

import re
from collections.abc import Collection

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.heads import HEAD_FILE, LABELS_FILE
from mass_serve.model_store.format.thresholds import THRESHOLDS_FILE
from mass_serve.model_store.readers.weight_files import INDEX_FILE, PICKLE_FILE, WEIGHTS_FILE

# Each says what kind of model the folder holds, so that one of them is in every folder that can be read.
CONFIG_FILES = ("config.json", "open_clip_config.json", "adapter_config.json")
_BESIDE = (
    *CONFIG_FILES,
    *("preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "sentence_bert_config.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "modules.json"),
    *(HEAD_FILE, LABELS_FILE, THRESHOLDS_FILE),
)
# The folder of sentence-transformers' pooling, by the name that the library gives it, and the file in it.
_POOLING_FOLDER, _POOLING = re.compile(r"\d+_Pooling"), re.compile(r"\d+_Pooling/config\.json")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
# The same weights in several forms, in the order in which readers prefer them.
_SAFETENSORS = (WEIGHTS_FILE, INDEX_FILE, "adapter_model.safetensors", "open_clip_model.safetensors")
_PICKLES = (PICKLE_FILE, "open_clip_pytorch_model.bin")
_PICKLED_ADAPTER = "adapter_model.bin"  # which no reader takes


def needed_files(name: str, listed: Collection[str], allow_pickle: bool) -> list[str]:
    """Returns the files to fetch of a folder, as seen from it; `listed` may be files in its folders, too.

    Raises CheckpointError where no weights are among them, with what is there instead.
    """
    beside = files_beside(listed)
    forms = (*_SAFETENSORS, *_PICKLES) if allow_pickle else _SAFETENSORS
    weights = next((file for file in forms if file in listed), None)
    if weights is None and HEAD_FILE not in listed:
        raise _without_weights(name, listed)
    shards = sorted(filter(_SHARD.fullmatch, listed)) if weights == INDEX_FILE else []
    return [*beside, *([] if weights is None else [weights]), *shards]


def files_beside(listed: Collection[str]) -> list[str]:
    """Returns the files that say what kind of model a weights file in their folder is."""
    return [*(file for file in _BESIDE if file in listed), *sorted(filter(_POOLING.fullmatch, listed))]


def has_needed_files(folder: str) -> bool:
    """Tells whether a folder of that name in a model's has files that a reader needs."""
    return _POOLING_FOLDER.fullmatch(folder) is not None


def _without_weights(name: str, listed: Collection[str]) -> CheckpointError:
    if _PICKLED_ADAPTER in listed:
        return CheckpointError(
            f"{name} has no safetensors but {_PICKLED_ADAPTER}, which is not read:"
            " save the adapter again with safe_serialization=True"
        )
    if pickles := [file for file in _PICKLES if file in listed]:
        return CheckpointError(
            f"{name} has no safetensors but the pickle {pickles[0]}: name a revision that has them,"
            " or pass --allow-pickle"
        )
    found = ", ".join(sorted(listed)[:5]) or "nothing"
    return CheckpointError(f"{name} has no {' or '.join(_SAFETENSORS)}: found {found}")
