"""Reading a store: every file is checked against its SHA-256 before it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch import Tensor

from mass_serve.model_store.errors import IntegrityError, ManifestError, StoreError, TaskError
from mass_serve.model_store.format.experts import ExpertLayout, TaskExperts, experts_from_tensors
from mass_serve.model_store.format.heads import HeadTensors, head_from_tensors
from mass_serve.model_store.format.journal import JOURNAL_FILE
from mass_serve.model_store.format.manifest import (
    MANIFEST_FILE,
    PRETRAINED_FILE,
    Manifest,
    TaskEntry,
    parse_manifest,
)
from mass_serve.model_store.format.tensor_files import TensorFileError, read_specs, read_tensors, sha256_of
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.opening import open_files


class Store:
    """One version of a store, as its manifest was when it was opened."""

    def __init__(self, files: StoreFiles, manifest: Manifest) -> None:
        self.files = files
        self.manifest = manifest
        self.layout = ExpertLayout.of(manifest)

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> Store:
        """Opens the store in a local folder or at any fsspec URL.

        Raises ManifestError when there is none, or none that this program can read.
        """
        return cls.open_files(open_files(url))

    @classmethod
    def open_files(cls, files: StoreFiles) -> Store:
        """Opens the store that these files are. Raises ManifestError."""
        try:
            content = files.read_bytes(MANIFEST_FILE)
        except (FileNotFoundError, NotADirectoryError) as error:
            unfinished = files.exists(JOURNAL_FILE)
            advice = "its build has not finished: run the same build again" if unfinished else "build one"
            raise ManifestError(f"there is no store at {files.url}: {advice}") from error
        except OSError as error:
            raise StoreError(f"{files.url} cannot be read: {error.strerror or error}") from error
        return cls(files, parse_manifest(content))

    def load_pretrained(self) -> dict[str, Tensor]:
        """Loads the weights before fine-tuning by canonical name, in the dtype they came in.

        Raises IntegrityError, as every load does, for a file that is missing or not what was written.
        """
        return self._load_encoder(PRETRAINED_FILE)

    def load_merged_base(self) -> dict[str, Tensor] | None:
        """Loads the merged base; None where it is not stored but rebuilt (`merging.merged_parameter`)."""
        path = self.manifest.merged_base_file
        return None if path is None else self._load_encoder(path)

    def load_calibration(self) -> dict[str, Tensor] | None:
        """Loads the tensors of the calibration (see `format.calibration`); None where there is none."""
        entry = self.manifest.calibration
        if entry is None:
            return None
        with self.checked_file(entry.file) as path:
            try:
                return read_tensors(path)
            except TensorFileError as error:
                raise IntegrityError(f"{entry.file} cannot be used: {error}") from error

    def load_experts(self, task_name: str) -> TaskExperts:
        """Loads what a task changes of the encoder. Raises TaskError for an unknown task."""
        with self.experts_file(self.task(task_name)) as path:
            return experts_from_tensors(self.layout, read_tensors(path))

    def load_head(self, task_name: str) -> HeadTensors:
        """Loads a task's classification head. Raises TaskError for an unknown task."""
        entry = self.task(task_name)
        with self.checked_file(entry.head_file) as path:
            try:
                head = head_from_tensors(read_tensors(path))
            except (TensorFileError, ValueError) as error:
                raise IntegrityError(f"{entry.head_file} cannot be used: {error}") from error
        expected = (len(entry.labels), self.manifest.backbone.embedding_dim)
        if head.kind != entry.head.kind or head.shape != expected:
            raise IntegrityError(
                f"{entry.head_file} holds a {head.kind} head {list(head.shape)}, "
                f"the manifest describes a {entry.head.kind} head {list(expected)}"
            )
        return head

    def task(self, name: str) -> TaskEntry:
        """Returns the manifest's entry of a task. Raises TaskError for an unknown one."""
        entry = self.manifest.find_task(name)
        if entry is None:
            known = ", ".join(task.name for task in self.manifest.tasks)
            raise TaskError(f"there is no task {name!r} in {self.files.url}; it has {known}")
        return entry

    def verify(self, progress: Progress = silent) -> list[str]:
        """Hashes every file, of earlier revisions too. Returns one sentence for each that is damaged."""
        damage = []
        paths = list(self.manifest.all_files())
        for done, path in enumerate(paths):
            progress("verifying", done, len(paths))
            try:
                with self.checked_file(path):
                    pass
            except IntegrityError as error:
                damage.append(str(error))
        progress("verifying", len(paths), len(paths))
        return damage

    @contextmanager
    def checked_file(self, path: str) -> Iterator[Path]:
        """Gives a local file with the content of a file of the store, after its hash was found right."""
        with self._local_copy(path) as local:
            if self._hash_of(path, local) != self.manifest.all_files()[path]:
                raise IntegrityError(
                    f"{path} in {self.files.url} is damaged: its SHA-256 is not the one in the manifest"
                )
            yield local

    @contextmanager
    def encoder_file(self, path: str) -> Iterator[Path]:
        """Gives a checked file that holds every parameter of the encoder."""
        with self.checked_file(path) as local:
            _check_shapes(path, local, self.manifest.backbone.parameter_shapes())
            yield local

    @contextmanager
    def experts_file(self, entry: TaskEntry) -> Iterator[Path]:
        """Gives a checked file that holds a task's blocks and deltas, of the manifest's ranks."""
        shapes = {key: spec.shape for key, spec in self.layout.tensor_specs().items()}
        with self.checked_file(entry.experts_file) as local:
            _check_shapes(entry.experts_file, local, shapes)
            yield local

    def _load_encoder(self, path: str) -> dict[str, Tensor]:
        with self.encoder_file(path) as local:
            tensors = read_tensors(local)
        return {name: tensors[name] for name in self.manifest.backbone.parameter_shapes()}

    def _hash_of(self, path: str, local: Path) -> str:
        try:
            return sha256_of(local)
        except OSError as error:
            raise IntegrityError(f"{path} in {self.files.url} cannot be read: {error.strerror}") from error

    @contextmanager
    def _local_copy(self, path: str) -> Iterator[Path]:
        with ExitStack() as stack:
            try:
                local = stack.enter_context(self.files.local_copy(path))
            except FileNotFoundError as error:
                raise IntegrityError(f"{path} is missing from {self.files.url}") from error
            except OSError as error:
                raise IntegrityError(f"{path} in {self.files.url} cannot be read: {error}") from error
            yield local


def _check_shapes(path: str, local: Path, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises IntegrityError unless a file has exactly the tensors that the manifest implies."""
    try:
        specs = read_specs(local)
    except TensorFileError as error:
        raise IntegrityError(f"{path} cannot be used: {error}") from error
    if unmatched := sorted(specs.keys() ^ expected.keys()):
        raise IntegrityError(f"{path} does not fit the manifest: {unmatched[0]} is missing or unexpected")
    for name, shape in expected.items():
        if specs[name].shape != shape:
            raise IntegrityError(
                f"{path} does not fit the manifest: {name} has shape {list(specs[name].shape)}, "
                f"expected {list(shape)}"
            )
