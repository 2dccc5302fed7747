"""The preprocessing of a checkpoint: preprocessor_config.json, as CLIP's image processor means it.

Configurations on disk may leave out whatever equals CLIP's defaults, so the defaults are part of the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.field_types import first_problem
from mass_serve.model_store.format.preprocessing import Preprocessing
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.open_clip import CONFIG_FILE as OPEN_CLIP_CONFIG

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# PIL's resampling filters, by the numbers that preprocessor configurations use.
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
PREPROCESSOR_CONFIG = "preprocessor_config.json"
_BICUBIC = RESAMPLING.index("bicubic")


def has_preprocessing(folder: Path) -> bool:
    """Tells whether the directory says how its model's images are prepared."""
    return _preprocessor_config(folder) is not None


def read_crop(folder: Path) -> int | None:
    """The edge of the images that the model's preprocessing gives; None where the directory does not say."""
    path, config = _preprocessor_config(folder) or (folder / PREPROCESSOR_CONFIG, {})
    try:
        return _edge(config.get("crop_size"), 0) or None
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """Reads how the model's images are prepared; CLIP's own way where the directory does not say.

    Raises CheckpointError where the configured way cannot be followed exactly.
    """
    path, config = _preprocessor_config(folder) or (folder / PREPROCESSOR_CONFIG, {})
    try:
        crop = _edge(config.get("crop_size"), image_size)
        size = _shortest_edge(config.get("size"), image_size)
        _check_supported(config)
        if config.get("do_center_crop", True) is False:
            crop = size
        if crop != image_size:
            raise ValueError(f"images of {crop} pixels do not fit an encoder for {image_size}")
        normalised = config.get("do_normalize", True) is not False
        return Preprocessing(
            size=size,
            crop=crop,
            interpolation=_interpolation(config.get("resample", _BICUBIC)),  # type: ignore[arg-type]
            mean=_channels(config.get("image_mean", CLIP_MEAN), "image_mean") if normalised else (0.0,) * 3,
            std=_channels(config.get("image_std", CLIP_STD), "image_std") if normalised else (1.0,) * 3,
        )
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _preprocessor_config(folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The file that says it, and what it says in the words of preprocessor_config.json; None without one.

    It may be part of the file that a whole CLIPProcessor is saved as, or of open_clip's configuration.
    """
    path = folder / PREPROCESSOR_CONFIG
    if path.exists():
        return path, read_json_object(path)
    path = folder / "processor_config.json"
    if path.exists():
        image_part = read_json_object(path).get("image_processor")
        return path, image_part if isinstance(image_part, dict) else {}
    path = folder / OPEN_CLIP_CONFIG
    if path.exists() and (config := read_json_object(path).get("preprocess_cfg")):
        return path, _of_open_clip(path, config)
    return None


def _of_open_clip(path: Path, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: preprocess_cfg must be an object")
    if (mode := config.get("resize_mode", "shortest")) != "shortest":
        raise CheckpointError(f"{path}: resize_mode must be 'shortest', found {mode!r}")
    interpolation = config.get("interpolation", "bicubic")
    if interpolation not in RESAMPLING:
        raise CheckpointError(
            f"{path}: interpolation must be {' or '.join(RESAMPLING)}, found {interpolation!r}"
        )
    # One number, or height and width; the image is resized to it and cropped to it.
    size = config.get("size")
    try:
        edge = _edge(dict(enumerate(size)) if isinstance(size, list) else size, 0) or None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return {
        "size": edge,
        "crop_size": edge,
        "resample": RESAMPLING.index(interpolation),
        **{f"image_{name}": config[name] for name in ("mean", "std") if name in config},
    }


def _check_supported(config: Mapping[str, Any]) -> None:
    factor = config.get("rescale_factor", 1 / 255)
    scaled_so = isinstance(factor, int | float) and abs(factor * 255 - 1) <= 1e-6
    if config.get("do_rescale", True) is False or not scaled_so:
        raise ValueError("only a rescale_factor of 1/255 is supported")
    if config.get("do_resize", True) is False:
        raise ValueError("do_resize false is not supported: images come in all sizes")


def _shortest_edge(value: object, default: int) -> int:
    """The length that the shortest edge is resized to; a resize that distorts is another thing."""
    if isinstance(value, dict) and set(value) != {"shortest_edge"}:
        raise ValueError(f"only a size of the shortest edge is supported, found {value}")
    return _edge(value, default)


def _channels(value: object, name: str) -> tuple[float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"{name} must be three numbers, found {value!r}")
    return (value[0], value[1], value[2])


def _edge(value: object, default: int) -> int:
    """One edge length from `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`."""
    if value is None:
        return default
    if isinstance(value, dict):
        edges = list(value.values())
        if not edges or any(edge != edges[0] for edge in edges):
            raise ValueError(f"only one edge length is supported, found {value}")
        value = edges.pop()
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"an edge length in pixels was expected, found {value!r}")
    return value


def _interpolation(resample: object) -> str:
    if isinstance(resample, int) and 0 <= resample < len(RESAMPLING):
        return RESAMPLING[resample]
    raise ValueError(f"resample must be one of 0..{len(RESAMPLING) - 1}, found {resample!r}")
