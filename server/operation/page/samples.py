"""What the page offers to try: the images of a folder, or the lines of a text file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from mass_serve.server.settings import Settings, SettingsError

# Those that browsers show.
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}
MOST_SAMPLES = 50
MOST_BYTES = 10_000_000  # of an image, or of the texts: all are kept in memory


@dataclass(frozen=True)
class Samples:
    """Images by the names of their files, and texts; a store reads one of both."""

    images: Mapping[str, bytes] = field(default_factory=dict)
    texts: Sequence[str] = ()


def offered_samples(settings: Settings) -> Samples:
    """Returns the samples that the settings name, or those of the demo store where that is served.

    Raises SettingsError as `read_samples`.
    """
    if settings.samples is not None:
        return read_samples(settings.samples)
    if settings.store is not None:
        return Samples()
    return read_samples(Path(str(files("mass_serve.server").joinpath("demo_samples"))))


def read_samples(path: Path) -> Samples:
    """Returns the images of a folder in the order of their names, or the lines of a text file.

    Raises SettingsError where there are none, more than `MOST_SAMPLES`, or larger ones than `MOST_BYTES`.
    """
    try:
        samples = _images(path) if path.is_dir() else Samples(texts=_lines(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"samples: {path} is no folder of images and no text file: {error}") from error
    found = len(samples.images) + len(samples.texts)
    if not 0 < found <= MOST_SAMPLES:
        raise SettingsError(f"samples: {path} has {found} images or lines; give 1 to {MOST_SAMPLES}")
    return samples


def _images(folder: Path) -> Samples:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return Samples(images={path.name: _checked(path).read_bytes() for path in paths[: MOST_SAMPLES + 1]})


def _lines(file: Path) -> list[str]:
    lines = _checked(file).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()]


def _checked(file: Path) -> Path:
    if file.stat().st_size > MOST_BYTES:
        raise SettingsError(f"samples: {file} is larger than {MOST_BYTES} bytes; give a smaller one")
    return file
