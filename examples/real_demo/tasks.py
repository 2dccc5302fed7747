"""The tasks: where their pictures come from and how the encoder is fine-tuned for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from examples.real_demo.pictures import Picture
from examples.real_demo.sources.clip_art import clip_art
from examples.real_demo.sources.digits import handwriting, scans
from examples.real_demo.sources.emoji import emoji, twitter_emoji
from examples.real_demo.sources.fashion import clothes
from examples.real_demo.sources.solar_cells import solar_cells
from examples.real_demo.sources.textiles import textiles


@dataclass(frozen=True)
class Task:
    """A task; `lora_rank` None means that all weights are fine-tuned."""

    name: str
    pictures: Callable[[Path], Iterable[Picture]]
    lora_rank: int | None = None
    mirrored: bool = True  # a mirrored picture has the same label


# Near each other are the digits of two sources and the emoji of two makers.
TASKS = (
    Task("clothes", clothes),
    Task("handwriting", handwriting, lora_rank=16, mirrored=False),
    Task("solar_cells", solar_cells),
    Task("emoji", emoji, lora_rank=16),
    Task("textiles", textiles),
    Task("scans", scans, lora_rank=8, mirrored=False),
    Task("clip_art", clip_art),
    Task("twitter_emoji", twitter_emoji),
)
