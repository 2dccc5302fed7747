"""Emoji with Unicode's groups as labels, as two of their makers draw them.

Noto Color Emoji (OFL 1.1) comes from Debian, Twitter's (CC-BY 4.0) from npm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from examples.from_packages.packages import fetch
from examples.real_demo.packages import EMOJI_FONT, EMOJI_GROUPS, TWITTER_EMOJI
from examples.real_demo.pictures import Picture

STRIKE = 109  # the only size of the font's bitmaps
_LINE = re.compile(r"([0-9A-F ]+?) +; fully-qualified +# \S+ E[\d.]+ (.+)")
_SKIN_TONE = re.compile(r"1F3F[B-F]")
# One emoji exists of a man, a woman and a person: all three are one group.
_PERSON = re.compile(r"\b(man|woman|person|men|women|people)\b")


def emoji(raw: Path) -> Iterator[Picture]:
    """Every emoji once, without the variants of skin tone."""
    font = next(fetch(EMOJI_FONT, raw).rglob("NotoColorEmoji.ttf"))
    for group, characters, name in named_emoji(_listed(raw)):
        yield Picture(group, _subject(name), partial(draw, characters, font))


def twitter_emoji(raw: Path) -> Iterator[Picture]:
    """The same emoji, by another hand."""
    folder = fetch(TWITTER_EMOJI, raw) / "package/img/twitter/64"
    for group, characters, name in named_emoji(_listed(raw)):
        path = folder / f"{'-'.join(f'{ord(character):04x}' for character in characters)}.png"
        if path.exists():
            yield Picture(group, _subject(name), partial(Image.open, path))


def named_emoji(listed: str) -> Iterator[tuple[str, str, str]]:
    """Group, characters and name of each emoji in the text of Unicode's `emoji-test.txt`."""
    group = ""
    for line in listed.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ").replace("&", "and").lower()
        elif (found := _LINE.match(line)) and not _SKIN_TONE.search(found[1]):
            yield group, "".join(chr(int(point, 16)) for point in found[1].split()), found[2]


def draw(characters: str, font_file: Path) -> Image.Image:
    """The emoji in colour on white."""
    font = ImageFont.truetype(str(font_file), STRIKE)
    page = Image.new("RGB", (136, 136), "white")
    ImageDraw.Draw(page).text((68, 68), characters, font=font, anchor="mm", embedded_color=True)
    return page


def _listed(raw: Path) -> str:
    return next(fetch(EMOJI_GROUPS, raw).rglob("emoji-test.txt")).read_text(encoding="utf-8")


def _subject(name: str) -> str:
    return _PERSON.sub("", name).strip()
