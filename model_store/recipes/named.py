"""The models of a build by their names, and what the build makes of them: local files with their origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mass_serve.model_store.errors import CheckpointError, RecipeError, StoreError
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.heads import HEAD_FILE, LABELS_FILE
from mass_serve.model_store.format.thresholds import THRESHOLDS_FILE
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.progress import Progress
from mass_serve.model_store.sources import Resolved, cache_folder, resolve
from mass_serve.model_store.words import head_from_words, read_class_names, read_templates
from mass_serve.model_store.words.lists import TABLES
from mass_serve.model_store.words.write_head import write_head


@dataclass(frozen=True)
class ModelName:
    """A name as somebody gave it: relative paths are relative to `folder`, and errors begin with `where`."""

    text: str
    folder: Path = Path()
    where: str = ""

    def resolve(self, allow_pickle: bool, progress: Progress) -> Resolved:
        """Fetches what the name stands for. Raises CheckpointError; RecipeError for one of a recipe."""
        with _told_where(self.where):
            return resolve(self.text, allow_pickle, progress, self.folder)

    @property
    def path(self) -> Path:
        """The local path that the name is, if it is one."""
        return self.folder / self.text


@dataclass(frozen=True)
class HeadWords:
    """A head that is to be made of class names and templates, which are lists or names of such."""

    classnames: ModelName | tuple[str, ...]
    templates: ModelName | tuple[str, ...]
    tokenizer: ModelName | None
    where: str


@dataclass(frozen=True)
class NamedTask:
    """A `TaskInput` whose files are yet to be fetched."""

    name: str
    checkpoint: ModelName
    head: ModelName | HeadWords | None = None
    labels: ModelName | None = None
    individual_accuracy: float | None = None
    multi_label: bool = False
    thresholds: ModelName | None = None
    block_format: BlockFormat | None = None  # None: the store's


def named_inputs(
    pretrained: ModelName, tasks: Sequence[NamedTask], allow_pickle: bool, progress: Progress
) -> tuple[Resolved, list[TaskInput]]:
    """Fetches all models of a build, and makes those heads that are made of words.

    Raises StoreError: CheckpointError, or RecipeError with the place in the recipe.
    """
    base = pretrained.resolve(allow_pickle, progress)
    return base, [task_input(task, base.path, allow_pickle, progress) for task in tasks]


def task_input(task: NamedTask, pretrained: Path | None, allow_pickle: bool, progress: Progress) -> TaskInput:
    """Fetches one task's models. `pretrained` is a whole CLIP where a head is to be made of words."""
    checkpoint = task.checkpoint.resolve(allow_pickle, progress)
    found = [checkpoint]
    head = labels = None
    if isinstance(task.head, ModelName):
        found.append(given := task.head.resolve(allow_pickle, progress))
        head = _file_in(given.path, HEAD_FILE)
    elif task.head is not None and pretrained is not None:
        folder = _head_of_words(task.head, pretrained, allow_pickle, progress)
        head, labels = folder / HEAD_FILE, folder / LABELS_FILE
    if task.labels is not None:
        found.append(given := task.labels.resolve(allow_pickle, progress))
        labels = _file_in(given.path, LABELS_FILE)
    thresholds = None
    if task.thresholds is not None:
        found.append(given := task.thresholds.resolve(allow_pickle, progress))
        thresholds = _file_in(given.path, THRESHOLDS_FILE)
    return TaskInput(
        task.name,
        checkpoint.path,
        head,
        labels,
        task.individual_accuracy,
        tuple(one.origin for one in found if one.origin is not None),
        task.multi_label,
        thresholds,
        task.block_format,
    )


def _file_in(path: Path, name: str) -> Path:
    """A head, its labels and its thresholds may be named by the folder that they are in."""
    return path / name if path.is_dir() else path


def _head_of_words(words: HeadWords, pretrained: Path, allow_pickle: bool, progress: Progress) -> Path:
    """Returns a cache folder with the head and its labels; made there unless the same was made before.

    A build that is run again finds the same files, so that it can go on where it stopped.
    """
    with _told_where(words.where):
        names, templates = _texts(words.classnames, read_class_names), _texts(words.templates, read_templates)
        tokenizer = words.tokenizer.resolve(allow_pickle, progress).path if words.tokenizer else None
        inputs = [names, templates, _identity(pretrained), _identity(tokenizer)]
        key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:24]
        folder = cache_folder().with_name("heads") / key
        if not (folder / HEAD_FILE).exists():
            made = head_from_words(
                pretrained,
                names,
                templates,
                tokenizer=tokenizer,
                allow_pickle=allow_pickle,
                progress=progress,
            )
            write_head(made, names, folder / HEAD_FILE, folder / LABELS_FILE)
        return folder


def _texts(given: ModelName | tuple[str, ...], read: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    if isinstance(given, tuple):
        return given
    published = given.text.lower() in {name.lower() for name in TABLES}
    with _told_where(given.where):
        return read(given.text if published else str(given.path))


def _identity(path: Path | None) -> list[tuple[str, int, int]]:
    """The files of a model's folder, as far as they can be told from others without reading them."""
    if path is None:
        return []
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    status = [(str(file.resolve()), file.stat()) for file in files if file.is_file()]
    return [(name, found.st_size, found.st_mtime_ns) for name, found in status]


@contextmanager
def _told_where(where: str) -> Iterator[None]:
    """Says in which line of a recipe it is that something could not be read."""
    try:
        yield
    except RecipeError:
        raise
    except StoreError as error:
        raise (RecipeError(f"{where}: {error}") if where else CheckpointError(str(error))) from error
