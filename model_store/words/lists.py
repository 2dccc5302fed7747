"""Lists of class names and of templates: from a user's file, or published ones by name.

    read_class_names("classes.txt")  # one a line, or a JSON list
    read_templates("Cars")           # those that the published heads of the benchmark were made of

`clip_benchmark/` has a table for each of the 20 tasks on which CLIPs are merged, in the order of the rows of
the published heads, and says where it is from; `-fusion-bench` stands for the words of FusionBench's models
where they are others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.readers.json_files import read_json_file
from mass_serve.model_store.storage.regular_files import read_text_file
from mass_serve.model_store.words.prompts import check_class_names, check_templates

TABLES = {path.stem: path for path in sorted(Path(__file__).with_name("clip_benchmark").glob("*.json"))}
_CLASS_NAMES, _TEMPLATES = "classnames", "templates"


def read_class_names(source: str) -> tuple[str, ...]:
    """Returns the class names of a published task, or those in a file. Raises CheckpointError."""
    return _read(source, _CLASS_NAMES, check_class_names)


def read_templates(source: str) -> tuple[str, ...]:
    """Returns the templates of a published task, or those in a file. Raises CheckpointError."""
    return _read(source, _TEMPLATES, check_templates)


def _read(source: str, kind: str, check: Callable[[Sequence[str], object], None]) -> tuple[str, ...]:
    table = next((path for name, path in TABLES.items() if name.lower() == source.lower()), None)
    if table is not None:
        return _of_table(table, kind)
    path = Path(source)
    if not path.exists():
        raise CheckpointError(f"{source} is neither a file nor one of {', '.join(TABLES)}")
    texts = _texts_in(path)
    check(texts, path)
    return texts


def _of_table(path: Path, kind: str) -> tuple[str, ...]:
    table: dict[str, Any] = read_json_file(path)
    if kind not in table:
        raise CheckpointError(f"{path.stem} has templates and no class names: give a file of them")
    return tuple(table[kind])


def _texts_in(path: Path) -> tuple[str, ...]:
    if path.suffix == ".json":
        return _json_list(path)
    try:
        content = read_text_file(path).decode("utf-8-sig")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: byte {error.start} is not UTF-8") from error
    # Not by `splitlines`, to which more than the ends of lines are ends of lines.
    return tuple(line.strip() for line in content.removesuffix("\n").split("\n")) if content.strip() else ()


def _json_list(path: Path) -> tuple[str, ...]:
    texts = read_json_file(path)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise CheckpointError(f"{path} must hold a JSON list of texts")
    return tuple(texts)
