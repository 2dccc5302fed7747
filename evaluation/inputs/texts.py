"""Texts in files: DATA/<task>.jsonl|csv|tsv with `text` and `label` or `labels`; DATA/<task>/<class>/*."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.backbone import Architecture, Packed, WordEmbedding
from mass_serve.engine.queries import TextQuery, batch_words
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.inputs.class_folders import labelled_folders, refuse_unknown_task
from mass_serve.evaluation.inputs.folders import files_below
from mass_serve.evaluation.inputs.item import Item, Labelled
from mass_serve.evaluation.inputs.row_labels import TaskLabels, target_of
from mass_serve.evaluation.inputs.tables import SUFFIXES
from mass_serve.evaluation.inputs.text_tables import read_rows
from mass_serve.inputs.errors import InputError
from mass_serve.inputs.texts import Text, TextTokenizer, TokenizerError, check_texts

PLAIN = ".txt"  # a file that is one text


@dataclass(frozen=True)
class TextFiles:
    """Files of texts. A text is kept as it is, and its words [n, 2] are made when they are needed."""

    tokenizer: TextTokenizer
    noun: str = "texts"
    labelled_form: str = "<task>.jsonl (or .csv, .tsv, or <task>/<class>/*.txt)"
    form: str = "*.txt (or .jsonl, .csv, .tsv)"

    def labelled(self, root: Path, labels: Mapping[str, TaskLabels]) -> Iterator[Labelled]:
        """Yields every text with the labels that its row or folder names."""
        tables = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
        _refuse_two_of_a_task(root, tables)
        for path in tables:
            refuse_unknown_task(path, path.stem, labels)
            for row in read_rows(path):
                place = f"{path}:{row.line}"
                target = target_of(row.content, place, path.stem, labels[path.stem])
                item = Item(f"{path.name}:{row.line}", text=_checked(row.text, place))
                yield Labelled(path.stem, target, item)
        for folder in labelled_folders(root, labels):
            for path in sorted(folder.path.glob(f"*{PLAIN}")):
                yield Labelled(folder.task, (folder.target,), _whole_file(path, root))

    def below(self, root: Path, within: str = "") -> list[Item]:
        """The texts of a file, or of those in a folder and in those within, in the order of their paths."""
        paths = files_below(root / within, SUFFIXES | {PLAIN})
        return [item for path in paths for item in _texts_of(path, root)]

    def read(self, root: Path, item: Item) -> Tensor:
        """The words [n, 2] int64 of a text: id and type of each of its tokens."""
        assert item.text is not None  # no text is left in its file
        try:
            return torch.from_numpy(self.tokenizer.tokens(item.text).words)
        except (InputError, TokenizerError) as error:
            raise EvaluationDataError(f"{root / item.place}: {error}") from error

    def query(self, tensor: Tensor, candidates: tuple[str, ...] | None = None) -> TextQuery:
        """The question about one text's words."""
        return TextQuery(tensor, candidates)

    def batch(self, architecture: Architecture, tensors: Sequence[Tensor], like: Tensor) -> Packed:
        """The words of all texts, packed."""
        embedding = architecture.embedding
        assert isinstance(embedding, WordEmbedding)  # of a store that reads texts
        return batch_words([TextQuery(words) for words in tensors], embedding, like.device)


def _refuse_two_of_a_task(root: Path, tables: Sequence[Path]) -> None:
    """Raises EvaluationDataError where a task has two files, or a file and a folder."""
    named = [path.stem for path in tables] + [path.name for path in root.iterdir() if path.is_dir()]
    for name in named:
        if named.count(name) > 1:
            raise EvaluationDataError(f"{root} has {name} twice: a task has one file, or one folder")


def _texts_of(path: Path, root: Path) -> Iterator[Item]:
    """Yields the text of a plain file, or those of a table."""
    if path.suffix.lower() == PLAIN:
        yield _whole_file(path, root)
        return
    for row in read_rows(path):
        yield Item(f"{path.relative_to(root)}:{row.line}", text=_checked(row.text, f"{path}:{row.line}"))


def _whole_file(path: Path, root: Path) -> Item:
    try:
        content = path.read_bytes().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise EvaluationDataError(f"{path} is no UTF-8 at byte {error.start}: save it as that") from error
    except OSError as error:
        raise EvaluationDataError(f"{path}: {error.strerror}") from error
    return Item(str(path.relative_to(root)), text=_checked(content, str(path)))


def _checked(text: Text, place: str) -> Text:
    """The text. Raises EvaluationDataError with its place where it is none."""
    try:
        check_texts([text])
    except InputError as error:
        raise EvaluationDataError(f"{place}: {error}") from error
    return text
