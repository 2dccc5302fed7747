"""Every shape that preprocessor configurations take, and what their own programs make of photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    DeiTImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.image_processors import CLIP_MEAN, CLIP_STD
from mass_serve.model_store.readers.preprocessing import read_preprocessing


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
        ({"size": {"height": 32, "width": 40}}, "only one edge length is supported"),
        ({"size": {"longest_edge": 32}}, "a size must be of the shortest edge, or of height and width"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "a size must be of the shortest edge, or"),
        ({"do_resize": False}, "do_resize false is not supported"),
        ({"rescale_factor": 1 / 127.5}, "only a rescale_factor of 1/255"),
        ({"do_pad": True}, "do_pad is not supported"),
        ({"resample": True}, r"resample must be one of 0\.\.5, found True"),
        (
            {"image_processor_type": "Siglip2ImageProcessor"},
            "image_processor_type must be CLIPImageProcessor, ",
        ),
        ({"feature_extractor_type": 5}, "image_processor_type must be .* found 5"),
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


def photographs() -> list[Image.Image]:
    """Two photographs, and parts of them that are high, square, narrow, small, and of odd sizes."""
    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    parts = [(0, 0, 201, 427), (100, 7, 340, 247), (3, 5, 640, 118), (300, 200, 321, 233)]
    return [china, flower, *(china.crop(part) for part in parts)]


def assert_prepares(processor: Any, folder: Path, image_size: int) -> None:
    preprocessor = ImagePreprocessor(read_preprocessing(folder, image_size))
    for image in photographs():
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        assert torch.equal(preprocessor.normalise(preprocessor.preprocess(image)), expected), image.size


PROCESSORS = [
    CLIPImageProcessorPil,
    ViTImageProcessorPil,
    DeiTImageProcessorPil,
    BitImageProcessorPil,
    SiglipImageProcessorPil,
]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_photographs_become_the_same_bits_as_in_transformers(kind: Any, tmp_path: Path) -> None:
    processor = kind()
    processor.save_pretrained(tmp_path)
    assert_prepares(processor, tmp_path, 224)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (CLIPImageProcessorPil, {"size": {"shortest_edge": 97}, "crop_size": 64, "resample": 2}),
        (CLIPImageProcessorPil, {"size": {"height": 64, "width": 64}, "do_center_crop": False}),
        (ViTImageProcessorPil, {"size": 64}),  # as ViTFeatureExtractor wrote it: one number is both edges
        (ViTImageProcessorPil, {"size": {"height": 64, "width": 64}, "resample": 3}),
        (DeiTImageProcessorPil, {"size": 73, "crop_size": 64}),
        (BitImageProcessorPil, {"size": {"shortest_edge": 70}, "crop_size": {"height": 64, "width": 64}}),
        (BitImageProcessorPil, {"size": {"shortest_edge": 50}, "crop_size": 64, "do_normalize": False}),
        (SiglipImageProcessorPil, {"size": {"height": 64, "width": 64}, "resample": 0}),
    ],
)
def test_configurations_mean_what_they_mean_in_transformers(
    kind: Any, config: dict[str, Any], tmp_path: Path
) -> None:
    written = {"image_processor_type": kind.__name__.removesuffix("Pil") + "Fast", **config}
    assert_prepares(kind(**config), write(tmp_path, **written), 64)


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("clip_vision_model", CLIPImageProcessorPil),
        ("vit", ViTImageProcessorPil),
        ("deit", DeiTImageProcessorPil),
        ("siglip", SiglipImageProcessorPil),
    ],
)
def test_a_folder_that_does_not_say_is_read_as_its_kind_of_model(
    model_type: str, kind: Any, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert_prepares(kind(), tmp_path, 224)


def test_dinov2_has_a_usual_way_of_its_own(tmp_path: Path) -> None:
    """Its processor's class has CLIP's mean and deviation, its published files have ImageNet's."""
    published = BitImageProcessorPil(
        size={"shortest_edge": 256}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2_with_registers"}))
    assert_prepares(published, tmp_path, 224)


def timm(folder: Path, **config: object) -> Path:
    content = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"input_size": [3, 32, 32]} | config}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_timms_transforms(tmp_path: Path) -> None:
    spec = read_preprocessing(timm(tmp_path), 32)
    assert (spec.size, spec.crop, spec.interpolation, spec.resize) == (36, 32, "bicubic", "shortest_edge")
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert spec.crop_rounding == "half_even"
    chosen = {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3}
    spec = read_preprocessing(timm(tmp_path, **chosen), 32)
    assert (spec.size, spec.crop, spec.interpolation, spec.resize) == (35, 32, "bilinear", "square")
    assert spec.mean == (0.5, 0.5, 0.5)


def test_what_timm_leaves_empty_is_as_if_it_were_left_out(tmp_path: Path) -> None:
    spec = read_preprocessing(timm(tmp_path, mean=None, std=None), 32)
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"crop_pct": 0.01}, "size: must be at most 4 times the crop, which is 32"),
        ({"input_size": [3, 10**400, 10**400]}, "input_size must be from 1 to 65536 pixels"),
    ],
)
def test_images_are_not_resized_to_far_more_than_is_taken_of_them(
    config: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        read_preprocessing(timm(tmp_path, **config), 32)


@pytest.mark.parametrize("edge", range(32, 40))
def test_the_middle_of_timms_crop_is_torchvisions(edge: int, tmp_path: Path) -> None:
    """Its `center_crop` begins at `int(round((edge - crop) / 2.0))`: of margins 1, 3, 5, 7 at 0, 2, 2, 4."""
    squash = timm(tmp_path, crop_mode="squash", crop_pct=32 / edge)
    spec = read_preprocessing(squash, 32).model_copy(update={"size": edge})
    image = photographs()[0].resize((edge, edge))
    begin = {33: 0, 34: 1, 35: 2, 36: 2, 37: 2, 38: 3, 39: 4}.get(edge, 0)
    expected = np.asarray(image)[begin : begin + 32, begin : begin + 32].transpose(2, 0, 1)
    assert np.array_equal(ImagePreprocessor(spec).preprocess(image).numpy(), expected)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"crop_mode": "border"}, r"config\.json: crop_mode must be 'center' or 'squash', found 'border'"),
        ({"input_size": [1, 32, 32]}, "input_size must be of 3 channels, found 1"),
        ({"input_size": [3, 32, 48]}, r"input_size must be one edge length in pixels, found \[32, 48\]"),
        ({"input_size": 32}, "input_size must be channels, height and width, found 32"),
        ({"input_size": [3, 48, 48]}, "images of 48 pixels do not fit an encoder for 32"),
        ({"crop_pct": 0.0001}, "crop_pct must be from 0.01 to 1, found 0.0001"),
        ({"crop_pct": "most"}, "crop_pct must be from 0.01 to 1, found 'most'"),
        ({"interpolation": "random"}, "interpolation must be nearest or .*, found 'random'"),
        ({"std": [0.2]}, "image_std must be three numbers"),
    ],
)
def test_what_timm_could_do_and_a_store_cannot(
    config: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        read_preprocessing(timm(tmp_path, **config), 32)
