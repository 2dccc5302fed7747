"""What is asked about: images as files, bytes, pictures of Pillow or arrays; texts, and pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image as Pillow

# A str is the path of a file, where the server reads images. An array is uint8: [H, W] or [H, W, 3 or 4].
Image: TypeAlias = "str | PathLike[str] | bytes | BinaryIO | Pillow.Image | npt.NDArray[Any]"
# The texts of a tuple belong together.
Text: TypeAlias = "str | tuple[str, str]"
Input: TypeAlias = "Image | Text"

# Those that PNG has.
_MODES_OF_PNG = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


def listed(inputs: Input | list[Any]) -> Sequence[Input]:
    """Returns an input, or a list of them, as a list. A tuple is one input: a pair of texts."""
    return inputs if isinstance(inputs, list) else [inputs]


def is_pair(value: Any) -> bool:
    """Tells whether a value is two texts that belong together."""
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(text, str) for text in value)


def image_file(image: Any) -> bytes:
    """Returns an image as the bytes of a file: as they are, or of pixels as PNG, which loses nothing.

    Raises OSError for a file that cannot be read, and TypeError for what is no image.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | PathLike):
        return Path(image).read_bytes()
    if hasattr(image, "__array_interface__") and not hasattr(image, "save"):
        image = _picture(image)
    if hasattr(image, "save"):
        return _png(image)
    content = image.read() if hasattr(image, "read") else None
    if not isinstance(content, bytes):
        raise TypeError(
            "an image is a path, bytes, a file opened with 'rb', a picture of Pillow or an array of uint8,"
            f" not {type(image).__name__}"
        )
    return content


def _picture(array: Any) -> Pillow.Image:
    from PIL import Image as Pillow  # here, because only arrays need it

    # Pillow would read other numbers as pixels of another kind.
    if array.dtype != "uint8":
        raise TypeError(f"an array of pixels must be uint8, 0 to 255, and not {array.dtype}")
    if not array.size:
        raise TypeError(f"an array of pixels must have some, and not the shape {list(array.shape)}")
    try:
        return Pillow.fromarray(array)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"an array of pixels must be [H, W], [H, W, 3] or [H, W, 4], and not {list(array.shape)}"
        ) from error


def _png(picture: Pillow.Image) -> bytes:
    if 0 in picture.size:
        raise TypeError(f"a picture must have pixels, and not the size {picture.size}")
    file = BytesIO()
    if picture.mode not in _MODES_OF_PNG:
        # Numbers of more than 8 bits are cut off in RGB, where those of a PNG may have 16.
        picture = picture.convert("I;16" if picture.mode == "I" else "RGB")
    picture.save(file, "PNG")
    return file.getvalue()


def text_json(text: Any) -> str | dict[str, str]:
    """Returns a text, or a pair, as JSON has it. Raises TypeError for what is none."""
    if isinstance(text, str):
        return text
    if is_pair(text):
        return {"text": text[0], "text_pair": text[1]}
    raise TypeError(f"this server reads texts: a str, or a tuple of two, not {type(text).__name__}")
