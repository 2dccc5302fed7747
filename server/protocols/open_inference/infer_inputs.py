"""What the input tensors of a request hold: images, texts, or pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.bodies import decoded_base64
from mass_serve.server.protocols.limits import Limits, check_count
from mass_serve.server.protocols.open_inference.tensors import NUMBER_TYPES, WireTensor
from mass_serve.server.serving.request_context import EncodedImages, Inputs, ReadyImages, Texts

IMAGE, PIXEL_VALUES, TEXT, TEXT_PAIR = "image", "pixel_values", "text", "text_pair"

# Normalised pixels are within about 3 of zero; what is far outside could only overflow in the encoder.
LARGEST_PIXEL_VALUE = 1000.0


def read_inputs(tensors: Sequence[WireTensor], limits: Limits) -> tuple[Inputs, tuple[int, ...]]:
    """Returns what the inputs hold, and their shape without an image's own: [N], or [N, 1] if sent so.

    Raises BadRequestError or TooLargeError.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(tensors) == 2 and by_name.keys() == {TEXT, TEXT_PAIR}:
        return _pairs(by_name[TEXT], by_name[TEXT_PAIR], limits)
    if len(tensors) == 1:
        return _of_one(tensors[0], limits)
    raise BadRequestError(
        f"A request has one input, {IMAGE!r}, {PIXEL_VALUES!r} or {TEXT!r}, or both texts of pairs,"
        f" {TEXT!r} and {TEXT_PAIR!r}; this one has {len(tensors)}."
    )


def _of_one(tensor: WireTensor, limits: Limits) -> tuple[Inputs, tuple[int, ...]]:
    count = tensor.shape[0] if tensor.shape else 0
    if _is_strings(tensor):
        if tensor.name == TEXT:
            check_count(count, "text", limits)
            return Texts(_texts(tensor)), tensor.shape
        if tensor.name == IMAGE:
            check_count(count, "image", limits)
            return EncodedImages(_files(tensor)), tensor.shape
    if tensor.name == PIXEL_VALUES and tensor.datatype in NUMBER_TYPES and len(tensor.shape) == 4:
        check_count(count, "image", limits)
        return ReadyImages(_pixels(tensor)), tensor.shape[:1]
    raise BadRequestError(
        f"The input must be {IMAGE!r} BYTES [N], or {PIXEL_VALUES!r} UINT8 [N, H, W, 3] or FP32 [N, 3, H, W],"
        f" or, where the store reads texts, {TEXT!r} BYTES [N], with {TEXT_PAIR!r} BYTES [N] beside it for"
        f" pairs; this is {tensor.name[:80]!a} {tensor.datatype[:20]!a} {list(tensor.shape[:6])}."
    )


def _is_strings(tensor: WireTensor) -> bool:
    return tensor.datatype == "BYTES" and tensor.shape[1:] in ((), (1,))


def _pairs(first: WireTensor, second: WireTensor, limits: Limits) -> tuple[Inputs, tuple[int, ...]]:
    """Returns the pairs that two tensors of as many texts are."""
    if not (_is_strings(first) and _is_strings(second) and first.shape == second.shape):
        kinds = [f"{one.datatype[:20]!a} {list(one.shape[:6])}" for one in (first, second)]
        raise BadRequestError(
            f"{TEXT!r} and {TEXT_PAIR!r} must both be BYTES [N], of one shape; these are {kinds[0]} and"
            f" {kinds[1]}."
        )
    check_count(first.shape[0] if first.shape else 0, "text", limits)
    return Texts(list(zip(_texts(first), _texts(second), strict=True))), first.shape


def _texts(tensor: WireTensor) -> list[str]:
    """Returns the texts of a BYTES tensor. Raises BadRequestError."""
    texts = []
    for index, element in enumerate(tensor.strings()):
        try:
            texts.append(element.decode())
        except UnicodeDecodeError as error:
            raise BadRequestError(
                f"The element {index} of the input {tensor.name!r} is not UTF-8 at byte {error.start}; send"
                " it so."
            ) from error
    return texts


def _files(tensor: WireTensor) -> list[bytes]:
    """Returns the image files of a BYTES tensor. Raises BadRequestError."""
    # JSON has no bytes, so files are base64 there.
    elements = tensor.strings()
    if isinstance(tensor.data, memoryview):
        return elements
    return [decoded_base64(text.decode(), f"data[{index}]") for index, text in enumerate(elements)]


def _pixels(tensor: WireTensor) -> NDArray[Any]:
    """Returns the pixels of a tensor, [N, 3, H, W] uint8 or float32. Raises BadRequestError."""
    channels = tensor.shape[3] if tensor.datatype == "UINT8" else tensor.shape[1]
    if channels != 3:
        raise BadRequestError(
            f"{PIXEL_VALUES!r} must be UINT8 [N, H, W, 3] or FP32 [N, 3, H, W]; its shape is {tensor.shape}."
        )
    values = tensor.numbers()
    if tensor.datatype == "UINT8":
        return values.transpose(0, 3, 1, 2).copy()
    if not np.all(np.abs(values) <= LARGEST_PIXEL_VALUE):  # NaN is not at most anything
        raise BadRequestError(
            f"{PIXEL_VALUES!r} must be normalised pixels, finite and within {LARGEST_PIXEL_VALUE:g} of zero."
        )
    return values.astype(np.float32, copy=True)
