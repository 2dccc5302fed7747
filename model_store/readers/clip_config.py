"""What Hugging Face CLIP directories say of a model: config.json and preprocessor_config.json.

Configurations on disk may leave out whatever equals CLIP's defaults, so the defaults are part of the format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mass_serve.model_store.backbone_spec import BackboneSpec
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.field_types import first_problem
from mass_serve.model_store.format.manifest import PreprocessingSpec

CONFIG_FILE = "config.json"

VISION_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 32,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 512,
    "num_channels": 3,
}
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# PIL's resampling filters, by the numbers that preprocessor configurations use.
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_WITH_PROJECTION = {"CLIPVisionModelWithProjection", "CLIPModel"}


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return content


def read_backbone_spec(folder: Path, has_projection: bool) -> BackboneSpec:
    """The encoder's sizes from config.json; of a full CLIPModel, those of its vision tower.

    `has_projection` says whether the weights hold one; the class named in the config may demand it too.
    Raises CheckpointError for another architecture or sizes that cannot be.
    """
    path = folder / CONFIG_FILE
    config = read_json_object(path)
    vision = VISION_DEFAULTS | _vision_config(path, config)
    if vision["num_channels"] != 3:
        raise CheckpointError(f"{path}: num_channels must be 3, found {vision['num_channels']}")
    if vision["hidden_act"] not in ("quick_gelu", "gelu"):
        raise CheckpointError(
            f"{path}: hidden_act must be quick_gelu or gelu, found {vision['hidden_act']!r}"
        )
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{path}: architectures must be a list of class names, found {classes!r}")
    projected = has_projection or not _WITH_PROJECTION.isdisjoint(classes)
    try:
        return BackboneSpec(
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            width=vision["hidden_size"],
            depth=vision["num_hidden_layers"],
            num_attention_heads=vision["num_attention_heads"],
            mlp_width=vision["intermediate_size"],
            activation=vision["hidden_act"],
            layer_norm_eps=vision["layer_norm_eps"],
            projection_dim=vision["projection_dim"] if projected else None,
        )
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}") from error


def _vision_config(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    model_type = config.get("model_type")
    if model_type == "clip_vision_model":
        return config
    if model_type != "clip":
        raise CheckpointError(
            f"{path}: model_type is {model_type!r}, but only CLIP vision encoders "
            "(clip, clip_vision_model) can be stored"
        )
    vision = config.get("vision_config") or {}
    if not isinstance(vision, dict):
        raise CheckpointError(f"{path}: vision_config must be an object")
    # The projection belongs to the pair of towers; its width in vision_config is a leftover.
    return vision | {"projection_dim": config.get("projection_dim", VISION_DEFAULTS["projection_dim"])}


def has_preprocessing(folder: Path) -> bool:
    """Whether the directory says how its model's images are prepared."""
    return _preprocessor_config(folder)[0].exists()


def read_preprocessing(folder: Path, image_size: int) -> PreprocessingSpec:
    """How the model's images are prepared; CLIP's own way where the directory does not say.

    Raises CheckpointError where the configured way cannot be followed exactly.
    """
    path, config = _preprocessor_config(folder)
    try:
        crop = _edge(config.get("crop_size"), image_size)
        size = _shortest_edge(config.get("size"), image_size)
        _check_supported(config)
        if config.get("do_center_crop", True) is False:
            crop = size
        if crop != image_size:
            raise ValueError(f"images of {crop} pixels do not fit an encoder for {image_size}")
        normalised = config.get("do_normalize", True) is not False
        return PreprocessingSpec(
            size=size,
            crop=crop,
            interpolation=_interpolation(config.get("resample", 3)),  # type: ignore[arg-type]
            mean=_channels(config.get("image_mean", CLIP_MEAN), "image_mean") if normalised else (0.0,) * 3,
            std=_channels(config.get("image_std", CLIP_STD), "image_std") if normalised else (1.0,) * 3,
        )
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _preprocessor_config(folder: Path) -> tuple[Path, dict[str, Any]]:
    """preprocessor_config.json, or the image part of the file that a whole CLIPProcessor is saved as."""
    path = folder / "preprocessor_config.json"
    if path.exists():
        return path, read_json_object(path)
    path = folder / "processor_config.json"
    if path.exists():
        image_part = read_json_object(path).get("image_processor")
        return path, image_part if isinstance(image_part, dict) else {}
    return path, {}


def _check_supported(config: dict[str, Any]) -> None:
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
        edges = set(value.values())
        if len(edges) != 1:
            raise ValueError(f"only one edge length is supported, found {value}")
        value = edges.pop()
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"an edge length in pixels was expected, found {value!r}")
    return value


def _interpolation(resample: object) -> str:
    if isinstance(resample, int) and 0 <= resample < len(RESAMPLING):
        return RESAMPLING[resample]
    raise ValueError(f"resample must be one of 0..{len(RESAMPLING) - 1}, found {resample!r}")
