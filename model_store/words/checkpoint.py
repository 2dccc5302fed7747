"""The text tower of a model on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from mass_serve.backbone.architecture import Block, BlockNames, weight_of
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.field_types import first_problem
from mass_serve.model_store.format.heads import LARGEST_LOGIT_SCALE
from mass_serve.model_store.format.tensor_files import unusable_numbers
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.weight_files import WeightFiles, open_weights
from mass_serve.model_store.words.form import LOGIT_SCALE, Form, Settings, Table
from mass_serve.model_store.words.hugging_face_form import HuggingFaceText
from mass_serve.model_store.words.open_clip_form import OpenClipText
from mass_serve.model_store.words.text_tower import POSITIONS, PROJECTION, TOKENS, TextArchitecture, TextTower

FORMS: tuple[Form, ...] = (OpenClipText(), HuggingFaceText())
# CLIP's training lets the scale grow to 100, and that of all of OpenAI's models got there.
USUAL_LOGIT_SCALE = 100.0
_FIRST_MLP = weight_of(BlockNames(0).fc1)


def read_text_tower(path: Path, allow_pickle: bool = False) -> TextTower:
    """Reads the text tower of the CLIP in a folder, or in a weights file beside its configuration.

    Where its logit scale was not saved with it, as in a CLIPTextModelWithProjection, it is CLIP's usual 100.
    Raises CheckpointError naming what is wrong.
    """
    folder = path if path.is_dir() else path.parent
    tower = _find_tower(path, open_weights(path, allow_pickle))
    config_file = folder / tower.form.config_file
    config = read_json_object(config_file) if config_file.exists() else {}
    tower.form.check(config_file, config)
    tower.check_keys()
    sizes = tower.sizes()
    try:
        architecture = _architecture(sizes, tower.form.settings(config_file, config, sizes))
    except ValidationError as error:
        raise CheckpointError(f"{config_file}: {first_problem(error)}") from error
    except ValueError as error:
        raise CheckpointError(f"{config_file}: {error}") from error
    shapes = architecture.parameter_shapes()
    parameters = {name: tower.parameter(name, shape) for name, shape in shapes.items()}
    return TextTower(architecture, parameters, tower.logit_scale())


def _find_tower(path: Path, weights: WeightFiles) -> _Tower:
    for form in FORMS:
        keys = _keys_by_name(path, form.names(weights.specs))
        table = form.table(1)
        if {*table[TOKENS], *table[_FIRST_MLP]} <= keys.keys():
            blocks = (int(found[1]) for name in keys if (found := form.block_pattern.match(name)))
            return _Tower(path, weights, form, keys, depth=1 + max(blocks))
    raise CheckpointError(
        f"{path} has no text tower of a CLIP, and heads are made of words with it:"
        " give the whole model as it was published, not its vision encoder alone"
    )


def _keys_by_name(path: Path, names: Mapping[str, str | None]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for key, name in names.items():
        if name is None:
            continue
        if name in keys:
            raise CheckpointError(f"{path}: {keys[name]} and {key} are the same parameter: remove one")
        keys[name] = key
    return keys


@dataclass(frozen=True)
class _Tower:
    """The tensors of a text tower in their files."""

    path: Path
    weights: WeightFiles
    form: Form
    keys: Mapping[str, str]  # those in the files by the form's names
    depth: int

    @cached_property
    def table(self) -> Table:
        """The form's names by ours."""
        return self.form.table(self.depth)

    def check_keys(self) -> None:
        """Raises CheckpointError for a tensor that is missing, and for one that our tower does not have."""
        expected = {theirs for several in self.table.values() for theirs in several}
        if missing := sorted(expected - self.keys.keys()):
            raise CheckpointError(f"{self.path}: the text tower lacks {missing[0]}")
        if extra := sorted(self.keys.keys() - expected - {LOGIT_SCALE}):
            raise CheckpointError(f"{self.path}: unexpected {self.keys[extra[0]]} in the text tower")

    def sizes(self) -> dict[str, int]:
        """Returns what the shapes say, by the names of TextArchitecture and its Block."""
        vocabulary, width = self._matrix(TOKENS)
        return {
            "vocabulary": vocabulary,
            "context_length": self._matrix(POSITIONS)[0],
            "width": width,
            "mlp_width": self._matrix(_FIRST_MLP)[0],
            "depth": self.depth,
            "projection_dim": self._matrix(PROJECTION)[0],
        }

    def parameter(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Reads a parameter by our name, in float32."""
        rows, *rest = shape
        part = (rows // len(self.table[name]), *rest)
        if transposed := name in self.form.transposed:
            part = part[::-1]
        for theirs in self.table[name]:
            found = self.weights.specs[self.keys[theirs]].shape
            if found != part:
                raise CheckpointError(
                    f"{self.path}: {self.keys[theirs]} has shape {list(found)}, expected {list(part)}"
                )
        whole = torch.cat([self._read(theirs) for theirs in self.table[name]])
        return whole.T.contiguous() if transposed else whole

    def logit_scale(self) -> float:
        """Returns `exp` of what was trained, the multiplier itself."""
        if LOGIT_SCALE not in self.keys:
            return USUAL_LOGIT_SCALE
        logarithm = self._read(LOGIT_SCALE)
        scale = logarithm.exp().reshape(-1)
        if scale.numel() != 1 or not 0 < scale.item() <= LARGEST_LOGIT_SCALE:
            raise CheckpointError(
                f"{self.path}: {LOGIT_SCALE} must be one number,"
                f" the logarithm of at most {LARGEST_LOGIT_SCALE:g}"
            )
        return scale.item()

    def _matrix(self, name: str) -> tuple[int, int]:
        shape = self.weights.specs[self.keys[self.table[name][0]]].shape
        if len(shape) != 2 or 0 in shape:
            raise CheckpointError(
                f"{self.path}: {self.table[name][0]} has shape {list(shape)}, not a matrix's"
            )
        return shape if name not in self.form.transposed else (shape[1], shape[0])

    def _read(self, theirs: str) -> Tensor:
        key = self.keys[theirs]
        if self.weights.specs[key].dtype is None:
            raise CheckpointError(f"{self.path}: {key} must be float64, float32, float16 or bfloat16")
        tensor = self.weights.read(key)
        if problem := unusable_numbers(key, tensor):
            raise CheckpointError(f"{self.path}: {problem}")
        return tensor.float()


def _architecture(sizes: Mapping[str, int], settings: Settings) -> TextArchitecture:
    block = Block(
        sizes["width"],
        settings.num_attention_heads,
        sizes["mlp_width"],
        settings.activation,
        settings.layer_norm_eps,
    )
    return TextArchitecture(
        sizes["vocabulary"],
        sizes["context_length"],
        block,
        sizes["depth"],
        sizes["projection_dim"],
        settings.end_token,
    )
