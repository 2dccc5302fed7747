"""The preprocessing of a checkpoint, from the configuration that its own program reads.

The configurations of Hugging Face's image processors and of open_clip's and timm's transforms are put into
the words of a preprocessor_config.json, and those are read in one way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.field_types import first_problem
from mass_serve.model_store.format.preprocessing import DOWN, SHORTEST_EDGE, Preprocessing, Resize
from mass_serve.model_store.readers.image_processors import (
    RESAMPLING,
    complete_configuration,
    usual_configuration,
)
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.open_clip_vision import CONFIG_FILE as OPEN_CLIP_CONFIG
from mass_serve.model_store.readers.transform_configs import of_open_clip, of_timm

PREPROCESSOR_CONFIG = "preprocessor_config.json"
_PROCESSOR_CONFIG = "processor_config.json"
_MODEL_CONFIG = "config.json"
# The files that may say it, and under which key; the first of them that does is followed.
_PARTS = {
    PREPROCESSOR_CONFIG: None,
    _PROCESSOR_CONFIG: "image_processor",  # a whole CLIPProcessor is saved as this
    OPEN_CLIP_CONFIG: "preprocess_cfg",
    _MODEL_CONFIG: "pretrained_cfg",  # timm's
}


def has_preprocessing(folder: Path) -> bool:
    """Tells whether the directory says how its model's images are prepared."""
    return _told_by(folder) is not None


def read_crop(folder: Path) -> int | None:
    """The edge of the images that the model's preprocessing gives; None where the directory does not say.

    Raises CheckpointError where what it says is no edge.
    """
    told = _told_by(folder)
    if told is None:
        return None
    try:
        return _crop(_configuration(told, _model_type(folder), image_size=0)) or None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / told[0]}: {error}") from error


def read_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """Reads how the model's images are prepared; the usual way of its kind where the directory does not say.

    Raises CheckpointError where the configured way cannot be followed exactly.
    """
    told = _told_by(folder)
    path = folder / (PREPROCESSOR_CONFIG if told is None else told[0])
    try:
        return _preprocessing(_configuration(told, _model_type(folder), image_size), image_size)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _told_by(folder: Path) -> tuple[str, Any] | None:
    """The name of the file that says it, and what it says."""
    for name, key in _PARTS.items():
        if not (folder / name).exists():
            continue
        content = read_json_object(folder / name)
        told = content if key is None else content.get(key)
        if told or key is None:
            return name, told
    return None


def _model_type(folder: Path) -> object:
    path = folder / _MODEL_CONFIG
    return read_json_object(path).get("model_type") if path.exists() else None


def _configuration(told: tuple[str, Any] | None, model_type: object, image_size: int) -> Mapping[str, Any]:
    """The whole configuration, in the words of preprocessor_config.json."""
    if told is None:
        return usual_configuration(model_type, image_size)
    name, config = told
    if name == OPEN_CLIP_CONFIG:
        return complete_configuration(of_open_clip(config), "clip", image_size)
    if name == _MODEL_CONFIG:
        return complete_configuration(of_timm(config), "clip", image_size)
    if not isinstance(config, dict):
        raise ValueError(f"{_PARTS[name]} must be an object, found {config!r}")
    return complete_configuration(config, model_type, image_size)


def _preprocessing(config: Mapping[str, Any], image_size: int) -> Preprocessing:
    _check_supported(config)
    resize, size = _size(config["size"])
    crop = _crop(config)
    if crop != image_size:
        raise ValueError(f"images of {crop} pixels do not fit an encoder for {image_size}")
    normalised = config.get("do_normalize") is not False
    return Preprocessing(
        size=size,
        crop=crop,
        interpolation=_interpolation(config["resample"]),  # type: ignore[arg-type]
        mean=_channels(config["image_mean"], "image_mean") if normalised else (0.0,) * 3,
        std=_channels(config["image_std"], "image_std") if normalised else (1.0,) * 3,
        resize=resize,
        crop_rounding=config.get("crop_rounding", DOWN),
    )


def _crop(config: Mapping[str, Any]) -> int:
    return _edge(config["crop_size"]) if config["do_center_crop"] is not False else _size(config["size"])[1]


def _check_supported(config: Mapping[str, Any]) -> None:
    factor = config.get("rescale_factor", 1 / 255)
    scaled_so = isinstance(factor, int | float) and abs(factor * 255 - 1) <= 1e-6
    if config.get("do_rescale") is False or not scaled_so:
        raise ValueError("only a rescale_factor of 1/255 is supported")
    if config.get("do_resize") is False:
        raise ValueError("do_resize false is not supported: images come in all sizes")
    if config.get("do_pad"):
        raise ValueError("do_pad is not supported: images become as large as the encoder takes them")


def _size(size: object) -> tuple[Resize, int]:
    """What is resized, and to how many pixels: the shortest edge, or height and width alike."""
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return SHORTEST_EDGE, _edge(size)
    if isinstance(size, Mapping) and set(size) != {"height", "width"}:
        raise ValueError(f"a size must be of the shortest edge, or of height and width, found {size}")
    return "square", _edge(size)


def _channels(value: object, name: str) -> tuple[float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"{name} must be three numbers, found {value!r}")
    return (value[0], value[1], value[2])


def _edge(value: object) -> int:
    """One edge length from `224`, `[224, 224]`, `{"shortest_edge": 224}`, `{"height": 224, "width": 224}`."""
    edges = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(edges, list | tuple):
        if not edges or any(edge != edges[0] for edge in edges):
            raise ValueError(f"only one edge length is supported, found {value}")
        value = edges[0]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"an edge length in pixels was expected, found {value!r}")
    return value


def _interpolation(resample: object) -> str:
    if type(resample) is int and 0 <= resample < len(RESAMPLING):
        return RESAMPLING[resample]
    raise ValueError(f"resample must be one of 0..{len(RESAMPLING) - 1}, found {resample!r}")
