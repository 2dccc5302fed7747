"""build.json: what an unfinished build has finished, so that the same command resumes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mass_serve.model_store.errors import StoreExistsError
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.field_types import Sha256, StrictModel, TaskName
from mass_serve.model_store.format.file_names import PRETRAINED_FILE
from mass_serve.model_store.format.strict_json import parse_json
from mass_serve.model_store.storage.files import StoreFiles

JOURNAL_FILE = "build.json"


class Journal(StrictModel):
    """The state of an unfinished build."""

    fingerprint: Sha256  # of the inputs and options
    pretrained_sha256: Sha256 | None = None
    level: Annotated[float, Field(ge=0)] | None = None  # of a budget, once it is known
    finished: dict[TaskName, TaskEntry] = Field(default_factory=dict)

    def files(self) -> dict[str, str]:
        """Returns the finished files with their SHA-256."""
        found = {PRETRAINED_FILE: self.pretrained_sha256} if self.pretrained_sha256 else {}
        for entry in self.finished.values():
            found |= entry.files
        return found

    def with_task(self, entry: TaskEntry) -> Journal:
        """Returns the journal after one more task."""
        return self.model_copy(update={"finished": {**self.finished, entry.name: entry}})

    def save(self, files: StoreFiles) -> None:
        """Makes this the journal in the folder, whole or not at all."""
        files.write_bytes(JOURNAL_FILE, (self.model_dump_json(indent=2) + "\n").encode())


def load_journal(files: StoreFiles) -> Journal | None:
    """Reads the journal of an unfinished build; None where there is none.

    Raises StoreExistsError for somebody else's build.json.
    """
    if not files.exists(JOURNAL_FILE):
        return None
    content = files.read_bytes(JOURNAL_FILE)
    try:
        parse_json(content)  # pydantic's own reader takes the last of two equal keys
        return Journal.model_validate_json(content)
    except ValueError as error:  # and so is pydantic's ValidationError
        raise StoreExistsError(
            f"{files.url} holds a {JOURNAL_FILE} that is not ours: choose another folder"
        ) from error
