"""What the readers of text encoders share: sizes in config.json, and how a text becomes one vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mass_serve.backbone.architecture import Architecture
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.changes import Zeros
from mass_serve.model_store.readers.family import Description, Source
from mass_serve.model_store.readers.json_files import read_json_file, read_json_object
from mass_serve.model_store.readers.transformers_names import activation_of

# Where sentence-transformers lists what comes after the encoder, and the kinds of it that are served. A
# cosine head normalises by itself.
MODULES_FILE = "modules.json"
POOLING, _SERVED = "Pooling", ("Transformer", "Pooling", "Normalize")
POOLED = {"pooling_mode_cls_token": "class", "pooling_mode_mean_tokens": "mean"}


def names_without(keys: Iterable[str], prefix: str, unused: tuple[str, ...]) -> dict[str, str | None]:
    """The keys without the model's prefix; None for what then begins as one of `unused`, and for buffers."""
    bare = {key: key.removeprefix(prefix) for key in keys}
    return {
        key: None if name.startswith(unused) or name.endswith(".position_ids") else name
        for key, name in bare.items()
    }


def positive_size(path: Path, config: Mapping[str, Any], name: str) -> int:
    """A size of a configuration. Raises CheckpointError for what is none."""
    value = config[name]
    if type(value) is not int or value < 1:  # a bool is an int to Python
        raise CheckpointError(f"{path}: {name} must be a whole number above 0, found {value!r}")
    return value


def post_norm_block(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """BERT's block, as a manifest has it."""
    return {
        "kind": "post_norm",
        "width": config["hidden_size"],
        "num_attention_heads": config["num_attention_heads"],
        "mlp_width": config["intermediate_size"],
        "activation": activation_of(path, config),
        "gated": False,
        "qkv_bias": True,
        "layer_norm_eps": config["layer_norm_eps"],
    }


def pooled_as_told(description: Description) -> str | None:
    """How sentence-transformers makes one vector of a text, `class` or `mean`; None where it is not there.

    Raises CheckpointError for another way.
    """
    path = description.path.parent / MODULES_FILE
    if not path.exists():
        return None
    modules = read_json_file(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path} must hold a JSON list of objects")
    kinds = {str(module.get("type")).rpartition(".")[2]: str(module.get("path")) for module in modules}
    if other := sorted(kinds.keys() - set(_SERVED)):
        raise CheckpointError(
            f"{path}: a module of the kind {other[0]} is not served, only {', '.join(_SERVED)}"
        )
    if POOLING not in kinds:
        raise CheckpointError(f"{path} has no module of the kind {POOLING}")
    return _pooled_by(_config_of(path, kinds[POOLING]))


def _config_of(modules: Path, folder: str) -> Path:
    if not folder.isprintable() or Path(folder).name != folder or not folder:
        raise CheckpointError(f"{modules} must name the folder of its {POOLING} in its own folder")
    return modules.parent / folder / "config.json"


def _pooled_by(path: Path) -> str:
    config = read_json_object(path)
    chosen = sorted(key for key, value in config.items() if key.startswith("pooling_mode_") and value is True)
    if len(chosen) != 1 or chosen[0] not in POOLED:
        found = ", ".join(chosen) or "none"
        raise CheckpointError(f"{path}: one of {' and '.join(POOLED)} must be true, found {found}")
    return POOLED[chosen[0]]


def with_zero_biases(
    sources: Mapping[str, Source], architecture: Architecture, description: Description
) -> dict[str, Source]:
    """The sources, with zeros in the place of every bias that the checkpoint lacks."""
    shapes = architecture.parameter_shapes()
    return {
        name: Source((), (), change=Zeros(shapes[name])) if _is_lacking(name, source, description) else source
        for name, source in sources.items()
    }


def _is_lacking(name: str, source: Source, description: Description) -> bool:
    return name.endswith(".bias") and not description.weights.keys() & set(source.keys)
