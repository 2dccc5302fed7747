"""Errors are one line that a terminal can show, whatever names a hostile file has."""

from __future__ import annotations

import pytest

from mass_serve.model_store.errors import ManifestError


def test_a_sentence_stays_as_it_is() -> None:
    assert str(ManifestError("manifest.json has no tasks: build the store anew")) == (
        "manifest.json has no tasks: build the store anew"
    )


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert str(ManifestError("task a\x1b[2J\nb is unknown")) == r"task a\x1b[2J\nb is unknown"


@pytest.mark.parametrize("character", ["x", "\x00", "\U000e0001"])
def test_both_ends_of_a_long_text_are_kept(character: str) -> None:
    """A name of control characters takes ten times its length when they are shown."""
    text = str(ManifestError(f"manifest.json: task {character * 1_000_000} is unknown: build the store anew"))
    assert text.startswith("manifest.json: task ")
    assert text.endswith(" is unknown: build the store anew")
    assert len(text) < 2100
