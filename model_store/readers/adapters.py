"""PEFT adapters: a task that is kept as changes of its base's matrices, merged as they are read.

    W' = W + s B A                            LoRA (arXiv:2106.09685)
    W' = m (W + s B A) / ||W + s B A||_row    DoRA (arXiv:2402.09353), which is one matrix at rest, too

with A [r, d_in], B [d_out, r] and s = alpha / r, or alpha / sqrt(r) in rsLoRA (arXiv:2312.03732). What an
adapter holds whole (`modules_to_save`, biases) takes the base's place, and everything else is the base's, to
the last bit. One tensor of the base is in memory at a time. `s B A` itself can be had as its thin factors.
`fan_in_fan_out` says nothing here: PEFT puts it off for matrices that a base keeps as [d_out, d_in], as all
do that are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mass_serve.merging import ThinDelta
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.tensor_files import LARGEST_NUMBER, TensorSpec
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    SafetensorsWeights,
    WeightFiles,
)

_PREFIX = "base_model.model."
_DOWN, _UP, _MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"
_SAVED = ".modules_to_save."
# What makes an adapter another function than the sum above, or one of another base.
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


def is_adapter(path: Path) -> bool:
    """Tells whether a fine-tuned model is the folder of a PEFT adapter."""
    return (path / ADAPTER_CONFIG).exists()


def changed_parameters(folder: Path) -> list[str]:
    """Returns what an adapter changes, as parameters' names in their library. Raises CheckpointError."""
    names = map(_plain, _without_copies(_adapter_weights(folder).specs))
    return sorted({f"{_module(name)}.weight" if ".lora_" in name else name for name in names})


@dataclass(frozen=True)
class _LowRank:
    """What an adapter changes of one matrix of the base: the names of its tensors, and their scale."""

    down: str
    up: str
    scale: float
    magnitude: str | None  # DoRA's


class AdaptedWeights(WeightFiles):
    """The tensors of a base by the names in its files, as an adapter changes them."""

    def __init__(self, folder: Path, base: WeightFiles, key_of: Callable[[str], str | None]) -> None:
        """Checks every tensor of the adapter against the base's.

        `key_of` gives the name in the base's files of a parameter as its library names it; the name itself
        where they have none, and None for one that is not needed. Raises CheckpointError.
        """
        self._config_file = folder / ADAPTER_CONFIG
        self._config = _checked_config(self._config_file)
        self._alphas = _alpha_patterns(self._config_file, self._config)
        self.base, self._adapter = base, _adapter_weights(folder)
        self.paths = (self._config_file, *self._adapter.paths, *base.paths)
        self.specs = dict(base.specs)
        self._low_rank: dict[str, _LowRank] = {}
        self._whole: dict[str, str] = {}
        for name in _without_copies(self._adapter.specs):
            self._place(name, key_of)
        if not self._low_rank and not self._whole:
            found = next(iter(self._adapter.specs), "no tensor")
            raise self._unfit(f"changes nothing of the encoder: it has {found}, so give another adapter")

    @property
    def task_type(self) -> object:
        """What PEFT calls the kind of model that the adapter was trained in; None where it does not say."""
        return self._config.get("task_type")

    def read(self, key: str) -> Tensor:
        if key in self._whole:
            return self._adapter.read(self._whole[key])
        weight = self.base.read(key)
        change = self._low_rank.get(key)
        return weight if change is None else self._changed(weight.float(), change)

    def changes(self, key: str) -> bool:
        """Tells whether the adapter has anything for a tensor of its base."""
        return key in self._whole or key in self._low_rank

    def thin_change(self, key: str) -> ThinDelta | None:
        """Reads what the adapter changes of a tensor of its base, flattened to a matrix [d_out, d_in].

        None where its change is not known as a product of thin matrices, and for a vector.
        """
        shape = self.specs[key].shape
        if key in self._whole or len(shape) < 2:
            return None
        change = self._low_rank.get(key)
        if change is None:
            return ThinDelta.none((shape[0], math.prod(shape[1:])))
        if change.magnitude is not None:  # DoRA scales what the base has, too
            return None
        down, up = (self._adapter.read(name).double().flatten(1) for name in (change.down, change.up))
        return ThinDelta(change.scale * up, down)

    def _changed(self, weight: Tensor, change: _LowRank) -> Tensor:
        down, up = (self._adapter.read(name).float().flatten(1) for name in (change.down, change.up))
        changed = weight + (change.scale * (up @ down)).reshape(weight.shape)
        if change.magnitude is None:
            return changed
        magnitude = self._adapter.read(change.magnitude).float()
        scaled: Tensor = changed * (magnitude / torch.linalg.vector_norm(changed, dim=1))[:, None]
        return scaled

    def _place(self, name: str, key_of: Callable[[str], str | None]) -> None:
        """Notes what becomes of one tensor of the adapter."""
        plain = _plain(name).removesuffix(".weight" if _MAGNITUDE in name else "")
        if plain.endswith(_MAGNITUDE) and not self._config.get("use_dora"):
            # PEFT leaves them out without a word, and computes what nobody trained.
            raise CheckpointError(
                f"{self._adapter.paths[0]} holds {name}, which is DoRA's, but {self._config_file} has no "
                'use_dora: write "use_dora": true into a copy if it was trained so, or save the adapter again'
            )
        if plain.endswith((_UP, _MAGNITUDE)) and f"{_module(name)}{_DOWN}" in self._adapter.specs:
            return  # it belongs to a lora_A
        if not plain.endswith(_DOWN):
            self._place_whole(name, plain, key_of)
            return
        module = plain.removesuffix(_DOWN)
        key = key_of(f"{module}.weight")
        if key is None:
            return
        if key not in self.base.specs:
            raise self._of_another_base(f"changes {module}, which the encoder does not have")
        self._refuse_second(key, name)
        self._low_rank[key] = self._checked(name, module, self.base.specs[key].shape)
        self.specs[key] = TensorSpec(torch.float32, self.base.specs[key].shape)

    def _place_whole(self, name: str, plain: str, key_of: Callable[[str], str | None]) -> None:
        if ".lora_" in name or not name.startswith(_PREFIX):
            raise self._unfit(f"holds {name}, which this version cannot merge")
        key = key_of(plain)
        if key is not None:
            self._refuse_second(key, name)
            self._whole[key] = name
            self.specs[key] = self._adapter.specs[name]

    def _refuse_second(self, key: str, name: str) -> None:
        first = self._low_rank[key].down if key in self._low_rank else self._whole.get(key)
        if first is not None:
            raise self._unfit(f"changes {key} twice: remove one of {first} and {name}")

    def _checked(self, down: str, module: str, shape: tuple[int, ...]) -> _LowRank:
        """Makes the change of a matrix or a convolution [d_out, ...] out of what the file has for it."""
        stem = down.removesuffix(_DOWN)
        specs, up = self._adapter.specs, f"{stem}{_UP}"
        if up not in specs:
            raise self._unfit(f"holds {down}, but no {up}: download it again")
        if not _is_low_rank_of(shape, specs[down].shape, specs[up].shape):
            raise self._of_another_base(
                f"changes {module} by {list(specs[up].shape)} times {list(specs[down].shape)}, where the "
                f"base has {list(shape)}, and not [d_out, r] times [r, d_in] of the base's [d_out, d_in]"
            )
        scale = self._scale(module, specs[down].shape[0])
        return _LowRank(down, up, scale, self._magnitude(stem, module, shape))

    def _magnitude(self, stem: str, module: str, shape: tuple[int, ...]) -> str | None:
        if not self._config.get("use_dora"):
            return None
        names = (f"{stem}{_MAGNITUDE}", f"{stem}{_MAGNITUDE}.weight")
        name = next((name for name in names if name in self._adapter.specs), None)
        if name is None or len(shape) != 2 or self._adapter.specs[name].shape != shape[:1]:
            raise self._unfit(f"has no lora_magnitude_vector [{shape[0]}] for the matrix of {module}")
        return name

    def _scale(self, module: str, rank: int) -> float:
        # The first pattern that fits the end of a module's name counts, as in PEFT.
        found = (value for pattern, value in self._alphas.items() if pattern.fullmatch(module))
        alpha = next(found, self._config["lora_alpha"])
        return float(alpha) / (rank**0.5 if self._config.get("use_rslora") else rank)

    def _of_another_base(self, what: str) -> CheckpointError:
        return self._unfit(
            f"{what}: give the model that the adapter was trained on, or merge the two with PEFT's "
            "merge_and_unload and give the whole model"
        )

    def _unfit(self, what: str) -> CheckpointError:
        base = self._config.get("base_model_name_or_path")
        return CheckpointError(f"{self._adapter.paths[0]} {what} (the adapter's own base is {base!r})")


def _without_copies(names: Collection[str]) -> list[str]:
    """Leaves out what PEFT writes more than once where all biases are trained.

    Of a module that is saved whole that is the bias as it was, and as it is by a second name.
    """
    return [
        name
        for name in names
        if ".original_module." not in name and not (_SAVED in name and name.replace(_SAVED, ".") in names)
    ]


def _plain(name: str) -> str:
    return name.removeprefix(_PREFIX).replace(".base_layer.", ".")


def _module(name: str) -> str:
    return re.split(r"\.lora_", name)[0]


def _checked_config(path: Path) -> Mapping[str, Any]:
    config = read_json_object(path)
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


def _is_low_rank_of(shape: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]) -> bool:
    """Tells whether A [r, d_in, ...] and B [d_out, r, 1, ...] make a change of W [d_out, d_in, ...]."""
    if len(shape) < 2 or 0 in down:
        return False
    edges = (1,) * (len(shape) - 2)
    return down[1:] == shape[1:] and up == (shape[0], down[0], *edges)


def _adapter_weights(folder: Path) -> SafetensorsWeights:
    if not (folder / ADAPTER_WEIGHTS).exists():
        raise CheckpointError(
            f"{folder} has no {ADAPTER_WEIGHTS}: save the adapter again with safe_serialization=True"
        )
    return SafetensorsWeights((folder / ADAPTER_WEIGHTS,))
