"""Hugging Face's image processors: what each takes for what its preprocessor_config.json leaves out.

The `image_processor_type` of a file (in old ones `feature_extractor_type`) tells which processor it is of, or
else the model's `model_type`. The defaults are those of transformers' classes, for an encoder of their size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# PIL's resampling filters, by the numbers that preprocessor configurations use.
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BILINEAR, _BICUBIC = RESAMPLING.index("bilinear"), RESAMPLING.index("bicubic")
_TYPE = re.compile(r"(\w+?)(ImageProcessor|FeatureExtractor)(Fast|Pil)?")


@dataclass(frozen=True)
class ImageProcessor:
    """What a class of image processors does where a file does not say."""

    square: bool  # a size of one number, or none, is one of both edges
    settings: Mapping[str, Any]
    enlarged: float = 1.0  # the default size, by the encoder's

    def complete(self, config: Mapping[str, Any], image_size: int) -> dict[str, Any]:
        """Adds to a configuration what it leaves out. Values that are null are left out, too."""
        said = {name: value for name, value in config.items() if value is not None}
        whole = {"size": round(image_size * self.enlarged), "crop_size": image_size, **self.settings, **said}
        if type(size := whole["size"]) is int:
            whole["size"] = {"height": size, "width": size} if self.square else {"shortest_edge": size}
        return whole


def _settings(resample: int, mean: tuple[float, ...], std: tuple[float, ...], crops: bool) -> dict[str, Any]:
    return {"resample": resample, "image_mean": mean, "image_std": std, "do_center_crop": crops}


_HALF = (0.5, 0.5, 0.5)
_CLIP = ImageProcessor(square=False, settings=_settings(_BICUBIC, CLIP_MEAN, CLIP_STD, crops=True))
_PROCESSORS = {
    "CLIP": _CLIP,
    "Bit": _CLIP,
    "ViT": ImageProcessor(square=True, settings=_settings(_BILINEAR, _HALF, _HALF, crops=False)),
    "DeiT": ImageProcessor(
        square=True, settings=_settings(_BICUBIC, _HALF, _HALF, crops=True), enlarged=256 / 224
    ),
    "Siglip": ImageProcessor(square=True, settings=_settings(_BICUBIC, _HALF, _HALF, crops=False)),
}
# As DINOv2 was published: nothing but its file says so, for the class of its processor has other defaults.
_DINO = ImageProcessor(
    square=False, settings=_settings(_BICUBIC, IMAGENET_MEAN, IMAGENET_STD, crops=True), enlarged=256 / 224
)
_OF_MODELS = {
    "clip": "CLIP",
    "clip_vision_model": "CLIP",
    "vit": "ViT",
    "deit": "DeiT",
    "dinov2": "Bit",
    "dinov2_with_registers": "Bit",
    "siglip": "Siglip",
    "siglip_vision_model": "Siglip",
}


def complete_configuration(config: Mapping[str, Any], model_type: object, image_size: int) -> dict[str, Any]:
    """Adds what a preprocessor_config.json leaves out; `size` is an object in the result.

    Raises ValueError for a processor that works in another way.
    """
    named = config.get("image_processor_type") or config.get("feature_extractor_type")
    kind = _OF_MODELS.get(str(model_type), "CLIP")
    if named is not None:
        found = _TYPE.fullmatch(str(named))
        kind = found[1] if found else ""
        if kind not in _PROCESSORS:
            known = ", ".join(f"{name}ImageProcessor" for name in _PROCESSORS)
            raise ValueError(f"image_processor_type must be {known}, found {named!r}")
    return _PROCESSORS[kind].complete(config, image_size)


def usual_configuration(model_type: object, image_size: int) -> dict[str, Any]:
    """The configuration of a model whose folder does not say how its images are prepared."""
    if str(model_type).startswith("dinov2"):
        return _DINO.complete({}, image_size)
    return complete_configuration({}, model_type, image_size)
