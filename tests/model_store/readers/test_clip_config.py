"""Every shape that preprocessor configurations take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import CLIPImageProcessorPil

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.preprocessing import CLIP_MEAN, CLIP_STD, read_preprocessing


def write(folder: Path, **config: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


def test_clip_defaults_where_the_directory_does_not_say(tmp_path: Path) -> None:
    spec = read_preprocessing(tmp_path, 224)
    assert (spec.size, spec.crop, spec.interpolation) == (224, 224, "bicubic")
    assert (spec.mean, spec.std) == (CLIP_MEAN, CLIP_STD)


def test_what_transformers_saves(tmp_path: Path) -> None:
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 40}, crop_size=32, resample=2, image_mean=[0.1, 0.2, 0.3], image_std=[1, 2, 3]
    )
    processor.save_pretrained(tmp_path)
    spec = read_preprocessing(tmp_path, 32)
    assert (spec.size, spec.crop, spec.interpolation) == (40, 32, "bilinear")
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))


def test_a_whole_processors_file(tmp_path: Path) -> None:
    content = {"image_processor": {"size": {"shortest_edge": 36}}, "processor_class": "CLIPProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(content))
    assert read_preprocessing(tmp_path, 32).size == 36


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"size": 48, "crop_size": 32}, 48),
        ({"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}}, 48),
        ({"size": 32, "do_center_crop": False}, 32),
        ({}, 32),
    ],
)
def test_sizes(tmp_path: Path, config: dict[str, object], size: int) -> None:
    spec = read_preprocessing(write(tmp_path, **config), 32)
    assert (spec.size, spec.crop) == (size, 32)


def test_no_normalisation(tmp_path: Path) -> None:
    spec = read_preprocessing(write(tmp_path, do_normalize=False), 32)
    assert (spec.mean, spec.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"crop_size": {"height": 32, "width": 48}}, "only one edge length is supported"),
        ({"size": {"height": 32, "width": 32}}, "only a size of the shortest edge"),
        ({"size": {"longest_edge": 32}}, "only a size of the shortest edge"),
        ({"do_resize": False}, "do_resize false is not supported"),
        ({"rescale_factor": None}, "only a rescale_factor of 1/255"),
        ({"image_mean": 0.5}, "image_mean must be three numbers"),
        ({"size": "large"}, "an edge length in pixels was expected"),
        ({"size": -4}, "size: Input should be greater than or equal to 1"),
        ({"crop_size": 48}, "images of 48 pixels do not fit an encoder for 32"),
        ({"resample": 9}, r"resample must be one of 0\.\.5, found 9"),
        ({"rescale_factor": 1.0}, "only a rescale_factor of 1/255 is supported"),
        ({"do_rescale": False}, "only a rescale_factor of 1/255 is supported"),
        ({"image_mean": [0.5]}, "mean"),
        ({"image_std": [1.0, 0.0, 1.0]}, "std.1: Input should be greater than or equal to 0.000001"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, config: dict[str, object], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        read_preprocessing(write(tmp_path, **config), 32)
