"""The transforms of open_clip and timm, in the words of Hugging Face's preprocessor_config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mass_serve.model_store.format.field_types import LARGEST_SIZE
from mass_serve.model_store.readers.image_processors import IMAGENET_MEAN, IMAGENET_STD, RESAMPLING

_MODES = ("shortest", "squash")  # of both programs: timm's "center" is the first


def of_open_clip(config: Any) -> dict[str, Any]:
    """Reads `preprocess_cfg` of an open_clip_config.json: an image is resized to a size and cropped to it.

    Raises ValueError for what cannot be followed.
    """
    config = _object(config, "preprocess_cfg")
    mode = config.get("resize_mode", "shortest")
    if mode not in _MODES:
        raise ValueError(f"resize_mode must be {' or '.join(map(repr, _MODES))}, found {mode!r}")
    size = config.get("size")
    edge = _edge(size, "size") if size is not None else None
    return _configuration(config, mode == "squash", edge, edge)


def of_timm(config: Any) -> dict[str, Any]:
    """Reads `pretrained_cfg` of a timm config.json; what it leaves out is as in `timm.data`.

    Raises ValueError for what cannot be followed.
    """
    given = {name: value for name, value in _object(config, "pretrained_cfg").items() if value is not None}
    config = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, **given}
    mode = config.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise ValueError(f"crop_mode must be 'center' or 'squash', found {mode!r}")
    channels, *edges = _list(config.get("input_size") or [3, 224, 224], "input_size")
    if channels != 3:
        raise ValueError(f"input_size must be of 3 channels, found {channels!r}")
    crop, share = _edge(edges, "input_size"), config.get("crop_pct") or 0.875
    if not isinstance(share, int | float) or not 0.01 <= share <= 1:
        raise ValueError(f"crop_pct must be from 0.01 to 1, found {share!r}")
    return _configuration(config, mode == "squash", math.floor(crop / share), crop)


def _configuration(
    config: Mapping[str, Any], squashed: bool, size: int | None, crop: int | None
) -> dict[str, Any]:
    interpolation = config.get("interpolation") or "bicubic"
    if interpolation not in RESAMPLING:
        raise ValueError(f"interpolation must be {' or '.join(RESAMPLING)}, found {interpolation!r}")
    return {
        "size": {"height": size, "width": size} if squashed and size else size,
        "crop_size": crop,
        "resample": RESAMPLING.index(interpolation),
        "crop_rounding": "half_even",  # by torchvision's CenterCrop
        **{f"image_{name}": config[name] for name in ("mean", "std") if name in config},
    }


def _object(config: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(config, Mapping):
        raise ValueError(f"{name} must be an object")
    return config


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{name} must be channels, height and width, found {value!r}")
    return value


def _edge(value: Any, name: str) -> int:
    """One edge from one number, or from equal height and width."""
    edges = value if isinstance(value, list) else [value]
    if not edges or any(type(edge) is not int for edge in edges) or len(set(edges)) != 1:
        raise ValueError(f"{name} must be one edge length in pixels, found {value!r}")
    if not 1 <= edges[0] <= LARGEST_SIZE:
        raise ValueError(f"{name} must be from 1 to {LARGEST_SIZE} pixels")
    return int(edges[0])
