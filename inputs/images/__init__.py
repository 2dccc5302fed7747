"""Image files: what each format declares, read before anything is decoded, and decoding."""

from mass_serve.inputs.images.decode import decode_image, decode_surveyed
from mass_serve.inputs.images.survey import survey
from mass_serve.inputs.images.surveyed import (
    DEFAULT_FORMATS,
    FORMATS,
    ImageFormat,
    ImageLimits,
    ImageSurvey,
)

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "ImageFormat",
    "ImageLimits",
    "ImageSurvey",
    "decode_image",
    "decode_surveyed",
    "survey",
]
