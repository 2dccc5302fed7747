"""PEFT adapters: a task that is kept as changes of its base's matrices, merged as they are read.

    W' = W + s B A                            LoRA (arXiv:2106.09685)
    W' = m (W + s B A) / ||W + s B A||_row    DoRA (arXiv:2402.09353), which is one matrix at rest, too

with A [r, d_in], B [d_out, r] and s = alpha / r, or alpha / sqrt(r) in rsLoRA (arXiv:2312.03732). Of a table
W [rows, d], such as that of words, it is the transposed one that is changed so, by A [r, rows] and B [d, r].
What an adapter holds whole (`modules_to_save`, biases) takes the base's place, and everything else is the
base's, to the last bit. One tensor of the base is in memory at a time. `s B A` itself can be had as its thin
factors.
`fan_in_fan_out` says nothing here: PEFT puts it off for matrices that a base keeps as [d_out, d_in], as all
do that are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.merging import ThinDelta
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.tensor_files import TensorSpec
from mass_serve.model_store.readers.adapter_config import AdapterConfig
from mass_serve.model_store.readers.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    SafetensorsWeights,
    WeightFiles,
)

_PREFIX = "base_model.model."
_DOWN, _UP, _MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"
_SAVED = ".modules_to_save."
# Of a table, whose rows are looked up: A is [r, rows] and B [d, r], and both are parameters themselves.
_TABLE_DOWN, _TABLE_UP = ".lora_embedding_A", ".lora_embedding_B"
_UPS = {_DOWN: _UP, _TABLE_DOWN: _TABLE_UP}
# Of a table that is changed PEFT may save what it was, too.
_BASE = ".base_layer."


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
    of_table: bool  # it changes the transposed matrix


class AdaptedWeights(WeightFiles):
    """The tensors of a base by the names in its files, as an adapter changes them."""

    def __init__(self, folder: Path, base: WeightFiles, key_of: Callable[[str], str | None]) -> None:
        """Checks every tensor of the adapter against the base's.

        `key_of` gives the name in the base's files of a parameter as its library names it; the name itself
        where they have none, and None for one that is not needed. Raises CheckpointError.
        """
        self._config = AdapterConfig.read(folder)
        self.base, self._adapter = base, _adapter_weights(folder)
        self.paths = (self._config.file, *self._adapter.paths, *base.paths)
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
        return self._config.task_type

    def read(self, key: str) -> Tensor:
        weight = self._adapter.read(self._whole[key]) if key in self._whole else self.base.read(key)
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
        left, right = self._factors(change, torch.float64)
        return ThinDelta(change.scale * left, right)

    def _factors(self, change: _LowRank, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Reads the thin matrices [d_out, r] and [r, d_in] whose product a change is, but for its scale."""
        down, up = (self._adapter.read(name).to(dtype).flatten(1) for name in (change.down, change.up))
        return (down.T, up.T) if change.of_table else (up, down)

    def _changed(self, weight: Tensor, change: _LowRank) -> Tensor:
        left, right = self._factors(change, torch.float32)
        changed = weight + (change.scale * (left @ right)).reshape(weight.shape)
        if change.magnitude is None:
            return changed
        dim = 0 if change.of_table else 1
        magnitude = self._adapter.read(change.magnitude).float().unsqueeze(dim)
        scaled: Tensor = changed * (magnitude / torch.linalg.vector_norm(changed, dim=dim, keepdim=True))
        return scaled

    def _place(self, name: str, key_of: Callable[[str], str | None]) -> None:
        """Notes what becomes of one tensor of the adapter."""
        plain = _plain(name).removesuffix(".weight" if _MAGNITUDE in name else "")
        if plain.endswith(_MAGNITUDE) and not self._config.uses_dora:
            # PEFT leaves them out without a word, and computes what nobody trained.
            raise CheckpointError(
                f"{self._adapter.paths[0]} holds {name}, which is DoRA's, but {self._config.file} has no "
                'use_dora: write "use_dora": true into a copy if it was trained so, or save the adapter again'
            )
        downs = (f"{_module(name)}{down}" for down in _UPS)
        if plain.endswith((*_UPS.values(), _MAGNITUDE)) and any(
            down in self._adapter.specs for down in downs
        ):
            return  # it belongs to a lora_A
        if not plain.endswith(tuple(_UPS)):
            self._place_whole(name, plain, key_of)
            return
        module = _module(plain)
        key = key_of(f"{module}.weight")
        if key is None:
            return
        if key not in self.base.specs:
            raise self._of_another_base(f"changes {module}, which the encoder does not have")
        if not self._is_base(key):
            self._refuse_second(key, name)
        self._low_rank[key] = self._checked(name, module, self.base.specs[key].shape)
        self.specs[key] = TensorSpec(torch.float32, self.base.specs[key].shape)

    def _place_whole(self, name: str, plain: str, key_of: Callable[[str], str | None]) -> None:
        if ".lora_" in name or not name.startswith(_PREFIX):
            raise self._unfit(f"holds {name}, which this version cannot merge")
        key = key_of(plain)
        if key is None:
            return
        spec = self._adapter.specs[name]
        if _BASE not in name or key in self._whole:
            self._refuse_second(key, name)
        elif key in self.base.specs and spec.shape != self.base.specs[key].shape:
            shape = list(self.base.specs[key].shape)
            raise self._of_another_base(f"changes {plain} {list(spec.shape)}, where the base has {shape}")
        self._whole[key] = name
        if key not in self._low_rank:
            self.specs[key] = spec

    def _is_base(self, key: str) -> bool:
        """Tells whether all that is known of a tensor yet is what the adapter has whole to be changed."""
        return _BASE in self._whole.get(key, "") and key not in self._low_rank

    def _refuse_second(self, key: str, name: str) -> None:
        first = self._low_rank[key].down if key in self._low_rank else self._whole.get(key)
        if first is not None:
            raise self._unfit(f"changes {key} twice: remove one of {first} and {name}")

    def _checked(self, down: str, module: str, shape: tuple[int, ...]) -> _LowRank:
        """Makes the change of a matrix or a convolution [d_out, ...] out of what the file has for it."""
        kind = next(suffix for suffix in _UPS if down.endswith(suffix))
        stem, of_table = down.removesuffix(kind), kind == _TABLE_DOWN
        specs, up = self._adapter.specs, f"{stem}{_UPS[kind]}"
        if up not in specs:
            raise self._unfit(f"holds {down}, but no {up}: download it again")
        of_base = shape[::-1] if of_table else shape
        if not _is_low_rank_of(of_base, specs[down].shape, specs[up].shape):
            raise self._of_another_base(
                f"changes {module} by {list(specs[up].shape)} times {list(specs[down].shape)}, where the "
                f"base has {list(shape)}, and not [d_out, r] times [r, d_in] of the base's"
                f" {'[d_in, d_out]' if of_table else '[d_out, d_in]'}"
            )
        scale = self._config.scale(module, specs[down].shape[0])
        return _LowRank(down, up, scale, self._magnitude(stem, module, of_base), of_table)

    def _magnitude(self, stem: str, module: str, shape: tuple[int, ...]) -> str | None:
        if not self._config.uses_dora:
            return None
        names = (f"{stem}{_MAGNITUDE}", f"{stem}{_MAGNITUDE}.weight")
        name = next((name for name in names if name in self._adapter.specs), None)
        if name is None or len(shape) != 2 or self._adapter.specs[name].shape != shape[:1]:
            raise self._unfit(f"has no lora_magnitude_vector [{shape[0]}] for the matrix of {module}")
        return name

    def _of_another_base(self, what: str) -> CheckpointError:
        return self._unfit(
            f"{what}: give the model that the adapter was trained on, or merge the two with PEFT's "
            "merge_and_unload and give the whole model"
        )

    def _unfit(self, what: str) -> CheckpointError:
        base = self._config.values.get("base_model_name_or_path")
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
    return name.removeprefix(_PREFIX).replace(_BASE, ".")


def _module(name: str) -> str:
    return re.split(r"\.lora_", name)[0]


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
