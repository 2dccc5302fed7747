"""What the readers of Hugging Face's encoders share: the words of config.json, and tables of names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mass_serve.backbone.architecture import CHANNELS, Architecture, bias_of, weight_of
from mass_serve.kernels.activation_names import Activation
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.architecture_v2 import NestedArchitecture
from mass_serve.model_store.format.field_types import first_problem
from mass_serve.model_store.readers.family import Source

# Activations by the names that transformers gives them; two of these are one formula.
ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
# The first of the names of each.
ACTIVATION_NAMES: Mapping[Activation, str] = {own: name for name, own in reversed(tuple(ACTIVATIONS.items()))}
# Modules as transformers 5 calls them in memory, and so PEFT in an adapter, and as checkpoints call them.
_SAVED_AS = {
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
}


def check_channels(path: Path, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError for images of another number of channels."""
    if config["num_channels"] != CHANNELS:
        raise CheckpointError(f"{path}: num_channels must be {CHANNELS}, found {config['num_channels']!r}")


def activation_of(path: Path, config: Mapping[str, Any]) -> Activation:
    """Returns the MLP's activation. Raises CheckpointError for one that is not served."""
    found = config["hidden_act"]
    if not isinstance(found, str) or found not in ACTIVATIONS:
        raise CheckpointError(f"{path}: hidden_act must be {' or '.join(ACTIVATIONS)}, found {found!r}")
    return ACTIVATIONS[found]


def square_edge(path: Path, config: Mapping[str, Any], name: str) -> int:
    """The edge of a square from `224` or `[224, 224]`. Raises CheckpointError for anything else."""
    value = config[name]
    edge, other = value if isinstance(value, list) and len(value) == 2 else (value, value)
    if type(edge) is not int or edge != other or edge < 1:  # a bool is an int to Python
        raise CheckpointError(f"{path}: {name} must be one edge length in pixels, found {value!r}")
    return edge


def checked_architecture(path: Path, parts: Mapping[str, Any]) -> Architecture:
    """The architecture of parts as a manifest has them. Raises CheckpointError for sizes that cannot be."""
    try:
        return NestedArchitecture.model_validate(parts).architecture()
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}") from error


def as_saved(name: str) -> str:
    """The name in checkpoints of a parameter of a block's attention, from that or from the one in memory."""
    for module, saved in _SAVED_AS.items():
        name = name.replace(module, saved)
    return name


def with_prefix(name: str, prefix: str, beside: tuple[str, ...]) -> str:
    """The name of a tensor in a file: a prefix and its name, but for what is beside the encoder."""
    return name if name.startswith(beside) else prefix + name


def weight_and_bias(operation: str, *theirs: str) -> dict[str, tuple[str, ...]]:
    """The rows of a table for both parameters of an operation, which may be several in the checkpoint."""
    return {of(operation): tuple(of(key) for key in theirs) for of in (weight_of, bias_of)}


def stacked_sources(architecture: Architecture, table: Mapping[str, tuple[str, ...]]) -> dict[str, Source]:
    """The place of every parameter of a table; the parts of a fused one share its rows evenly.

    Patches go through a convolution there.
    """
    sources = {}
    for name, (rows, *rest) in architecture.parameter_shapes().items():
        if name in table:
            sources[name] = Source(table[name], (rows // len(table[name]), *rest))
    if not architecture.reads_text:
        patches, side = weight_of(architecture.patches.linear), architecture.patches.patch_size
        sources[patches] = Source(table[patches], (architecture.width, CHANNELS, side, side))
    return sources
