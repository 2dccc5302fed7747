"""What a user names on the command line, as a store takes it: image files, or texts in three places."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer

from mass_serve.engine import PreparedInput
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.inputs.errors import InputError
from mass_serve.inputs.images import ImageLimits, decode_image
from mass_serve.inputs.texts import Text, TextTokenizer, TokenizerError, Tokens, check_texts, parts
from mass_serve.server.protocols.text_items import FIRST, SECOND, read_text

STANDARD_INPUT = Path("-")
# Between the two texts of a pair, in a line of output.
PAIRED = " | "


@dataclass(frozen=True)
class GivenInput:
    """One image or text that can be classified."""

    name: str  # in a line of output
    described: dict[str, str | None]  # in JSON
    prepared: PreparedInput

    @property
    def cut(self) -> int | None:
        """How many tokens of a text are not read; None of an image."""
        return self.prepared.cut if isinstance(self.prepared, Tokens) else None


@dataclass
class GivenInputs:
    """Collects what can be read. A line on standard error names everything else that was given."""

    placed: bool = False  # it shall be known where the tokens of texts stand in them
    readable: list[GivenInput] = field(default_factory=list, init=False)
    failed: bool = field(default=False, init=False)

    def read_images(
        self, paths: Sequence[Path], preprocessor: ImagePreprocessor, limits: ImageLimits
    ) -> None:
        """Reads image files."""
        for path in paths:
            with self._telling(path):
                pixels = preprocessor.preprocess(decode_image(path.read_bytes(), limits))
                self.readable.append(GivenInput(str(path), {"image": str(path)}, pixels))

    def read_texts(
        self, texts: Sequence[Text], files: Sequence[Path], lines: Sequence[Path], tokenizer: TextTokenizer
    ) -> None:
        """Reads texts given as such, files that are one text, and files of which each line is one.

        Lines of nothing but blanks are no texts. Those of a .jsonl file are a text or a pair in JSON.
        """
        for text in texts:
            self._read_text(text, None, tokenizer)
        for path in files:
            with self._telling(path):
                self._read_text(_content(path), str(path), tokenizer)
        for path in lines:
            with self._telling(path):
                read = _text_of_json if path.suffix == ".jsonl" else str
                for number, line in enumerate(_content(path).split("\n"), start=1):
                    if line.strip():
                        self._read_line(line, read, f"{path}:{number}", tokenizer)

    def _read_line(
        self, line: str, read: Callable[[str], Text], source: str, tokenizer: TextTokenizer
    ) -> None:
        try:
            text = read(line)
        except ValueError as error:
            self._tell(source, error)
        else:
            self._read_text(text, source, tokenizer)

    def _read_text(self, text: Text, source: str | None, tokenizer: TextTokenizer) -> None:
        with self._telling(source or "--text"):
            check_texts([text])
            tokens = tokenizer.tokens(text, placed=self.placed)
            name = source or PAIRED.join(map(on_one_line, parts(text)))
            described = dict(zip((FIRST, SECOND), parts(text), strict=False)) | {"source": source}
            self.readable.append(GivenInput(name, described, tokens))

    @contextmanager
    def _telling(self, name: str | Path) -> Iterator[None]:
        """Tells what is wrong with an input, by its name, and goes on."""
        try:
            yield
        except OSError as error:
            self._tell(name, error.strerror)
        except UnicodeDecodeError:
            self._tell(name, "this is no text in UTF-8; the store reads texts: give --text or text files")
        except (InputError, TokenizerError) as error:
            self._tell(name, error)

    def _tell(self, name: str | Path, problem: object) -> None:
        self.failed = True
        typer.echo(f"error: {name}: {problem}", err=True)


def on_one_line(text: str) -> str:
    """Returns a text without line ends and tabs, which would end its place in a line of output."""
    return " ".join(text.split())


def _text_of_json(line: str) -> Text:
    """Returns the text or pair of a line in JSON, as the server takes one. Raises ValueError."""
    try:
        return read_text(json.loads(line))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"a line of a .jsonl file must be a text or a pair in JSON ({error})") from error


def _content(path: Path) -> str:
    """Returns what a file or standard input holds, without a mark of the order of bytes."""
    data = sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
    return data.decode("utf-8-sig").replace("\r\n", "\n")
