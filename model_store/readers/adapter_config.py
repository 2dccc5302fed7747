"""What the adapter_config.json of a PEFT adapter says of how it is merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.tensor_files import LARGEST_NUMBER
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.weight_files import ADAPTER_CONFIG

# What makes an adapter another function than those that are merged, or one of another base.
_UNSUPPORTED = (
    "alora_invocation_tokens",
    "layer_replication",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
# Others change the base's own weights before the training.
_BASE_KEEPING_STARTS = (True, False, None, "gaussian", "eva")
# PEFT takes any regular expression for the names of modules. These have no groups and few repetitions, so
# that none of them takes long on any name.
_PATTERN = re.compile(r"\^?(?:[A-Za-z0-9_.-]|\\\.|\.\*|\\d\+|\[0-9\]\+|\|\^?)+")
_LONGEST_PATTERN, _MOST_OF_A_REPETITION, _MOST_PATTERNS = 512, 2, 1000


@dataclass(frozen=True)
class AdapterConfig:
    """The configuration of an adapter that is a change of weights."""

    file: Path
    values: Mapping[str, Any]
    alphas: Mapping[re.Pattern[str], float]  # of modules that have one of their own, by their whole names

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the configuration in an adapter's folder. Raises CheckpointError."""
        path = folder / ADAPTER_CONFIG
        values = _checked(path, read_json_object(path))
        return cls(path, values, _alpha_patterns(path, values))

    @property
    def task_type(self) -> object:
        """What PEFT calls the kind of model that the adapter was trained in; None where it does not say."""
        return self.values.get("task_type")

    @property
    def uses_dora(self) -> bool:
        """Tells whether the adapter has magnitudes beside its directions."""
        return bool(self.values.get("use_dora"))

    def scale(self, module: str, rank: int) -> float:
        """The factor s of a module's change."""
        # The first pattern that fits the end of a module's name counts, as in PEFT.
        found = (value for pattern, value in self.alphas.items() if pattern.fullmatch(module))
        alpha = next(found, self.values["lora_alpha"])
        return float(alpha) / (rank**0.5 if self.values.get("use_rslora") else rank)


def _checked(path: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    if config.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{path}: peft_type is {config.get('peft_type')!r}, but only LORA is a change of weights: "
            "merge the adapter into its base and give the whole model"
        )
    for key in _UNSUPPORTED:
        if config.get(key):
            raise CheckpointError(f"{path}: {key} is set: merge the adapter and give the whole model")
    if (start := config.get("init_lora_weights")) not in _BASE_KEEPING_STARTS:
        raise CheckpointError(
            f"{path}: init_lora_weights is {start!r}, which changes the base as well: "
            "merge the adapter and give the whole model"
        )
    _check_alpha(path, "lora_alpha", config.get("lora_alpha"))
    return config


def _check_alpha(path: Path, key: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > LARGEST_NUMBER:
        raise CheckpointError(
            f"{path}: {key} must be a number of at most {LARGEST_NUMBER:g}, found {repr(value)[:80]}: "
            "take the one that the adapter was trained with"
        )


def _alpha_patterns(path: Path, config: Mapping[str, Any]) -> dict[re.Pattern[str], float]:
    """Returns the scales of the modules that have one of their own, by what fits the modules' whole names."""
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict) or len(alphas) > _MOST_PATTERNS:
        raise CheckpointError(f"{path}: alpha_pattern must be an object of at most {_MOST_PATTERNS} patterns")
    for pattern, value in alphas.items():
        if not _is_quick(pattern):
            raise CheckpointError(
                f"{path}: alpha_pattern has {pattern[:80]!r}, but only names with \\., .*, \\d+, [0-9]+ and "
                f"| are read, of at most {_LONGEST_PATTERN} characters and {_MOST_OF_A_REPETITION} "
                "of each repetition: merge the adapter with PEFT's merge_and_unload and give the whole model"
            )
        _check_alpha(path, f"alpha_pattern: {pattern!r}", value)
    return {re.compile(rf"(.*\.)?({pattern})"): value for pattern, value in alphas.items()}


def _is_quick(pattern: str) -> bool:
    """Tells whether a pattern is one of those that `re` compiles, and tries on any name in a moment."""
    repetitions = pattern.count("*"), pattern.count("+")
    short = len(pattern) <= _LONGEST_PATTERN and max(repetitions) <= _MOST_OF_A_REPETITION
    return short and _PATTERN.fullmatch(pattern) is not None
