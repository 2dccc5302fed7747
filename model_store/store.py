"""Reading a store: nothing of a file is used before its bytes had the SHA-256 that the manifest says.

What is loaded is hashed while it is read, so that no byte can become another one in between, and a file of
many gigabytes is read once. A writer reads single tensors when it needs them, of a file that is hashed first.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from mass_serve.model_store.described_store import DescribedStore
from mass_serve.model_store.errors import IntegrityError, TaskError
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.experts import ExpertLayout, TaskExperts, experts_from_tensors
from mass_serve.model_store.format.file_names import (
    MOST_TOKENIZER_BYTES,
    PRETRAINED_FILE,
    TOKENIZER_FILE,
)
from mass_serve.model_store.format.heads import HeadTensors, created_head, head_from_tensors
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.model_store.format.tensor_files import (
    TensorFile,
    TensorFileError,
    TensorSpec,
    unusable_numbers,
)
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.regular_files import RegularFile, sha256_of

Shapes = Mapping[str, tuple[int, ...]]


class Store(DescribedStore):
    """One version of a store, as its manifest was when it was opened."""

    def __init__(self, files: StoreFiles, manifest: Manifest) -> None:
        super().__init__(files, manifest)
        self.layout = ExpertLayout.of(manifest)
        self._hashes = manifest.all_files()
        self._tasks = {task.name: task for task in manifest.tasks}

    def load_pretrained(self) -> dict[str, Tensor]:
        """Loads the weights before fine-tuning by canonical name, in the dtype they came in.

        Raises IntegrityError, as every load does, for a file that is missing, is not what was written, or
        holds numbers that nobody can compute with. What is loaded is memory of its own.
        """
        return self._load_encoder(PRETRAINED_FILE)

    def pretrained_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Reads the weights before fine-tuning one after the other, in the order of their file.

        Raises as `load_pretrained`, whatever is wrong with any of them as late as behind the last.
        """
        return self._read(PRETRAINED_FILE, self.manifest.backbone.parameter_shapes())

    def load_merged_base(self) -> dict[str, Tensor] | None:
        """Loads the merged base; None where it is not stored but rebuilt (`merging.merged_parameter`)."""
        path = self.manifest.merged_base_file
        return None if path is None else self._load_encoder(path)

    def load_calibration(self) -> dict[str, Tensor] | None:
        """Loads the tensors of the calibration (see `format.calibration`); None where there is none."""
        entry = self.manifest.calibration
        if entry is None:
            return None
        return dict(self._read(entry.file))

    def load_tokenizer(self) -> bytes | None:
        """Loads the content of tokenizer.json; None where the store reads images."""
        if TOKENIZER_FILE not in self.manifest.files:
            return None
        with self.checked_file(TOKENIZER_FILE) as file:
            if file.size > MOST_TOKENIZER_BYTES:
                raise IntegrityError(
                    f"{TOKENIZER_FILE} has {file.size:,} bytes, and at most {MOST_TOKENIZER_BYTES:,} are read"
                )
            content = bytearray(file.size)
            file.read_into(memoryview(content), start=0)
        return bytes(content)

    def load_experts(self, task_name: str) -> TaskExperts:
        """Loads what a task changes of the encoder. Raises TaskError for an unknown task."""
        entry = self.task(task_name)
        with self.opened(entry.experts_file) as file:
            return self.experts_in(file, entry)

    def experts_in(self, file: RegularFile, entry: TaskEntry) -> TaskExperts:
        """Loads what a task changes of the encoder from its file, which is open."""
        layout = self.layout_of(entry)
        shapes, whole = self._expert_shapes(entry), layout.packed_tensors
        return experts_from_tensors(layout, dict(self._read_open(file, entry.experts_file, shapes, whole)))

    def layout_of(self, entry: TaskEntry) -> ExpertLayout:
        """Returns the layout of the experts file of one of the store's tasks."""
        return self.layout.of_entry(entry)

    def load_head(self, task_name: str) -> HeadTensors:
        """Loads a task's classification head. Raises TaskError for an unknown task."""
        return self._load_head(self.task(task_name))

    def _load_head(self, entry: TaskEntry) -> HeadTensors:
        try:
            tensors = dict(self._read(entry.head_file))
            created = entry.combination is not None
            head = created_head(tensors) if created else head_from_tensors(tensors, entry.head.hidden)
        except ValueError as error:
            raise IntegrityError(f"{entry.head_file} cannot be used: {error}") from error
        backbone = self.manifest.backbone
        width = backbone.width if entry.head.each_token else backbone.embedding_dim
        expected = (len(entry.labels), width)
        if head.kind != entry.head.kind or head.shape != expected:
            raise IntegrityError(
                f"{entry.head_file} holds a {head.kind} head {list(head.shape)}, "
                f"the manifest describes a {entry.head.kind} head {list(expected)}"
            )
        return replace(head, each_token=entry.head.each_token, thresholds=entry.head.thresholds)

    def task(self, name: str) -> TaskEntry:
        """Returns the manifest's entry of a task. Raises TaskError for an unknown one."""
        entry = self._tasks.get(name)
        if entry is None:
            known = ", ".join(task.name for task in self.manifest.tasks)
            raise TaskError(f"there is no task {name!r} in {self.files.url}; it has {known}")
        return entry

    def verify(self, progress: Progress = silent) -> list[str]:
        """Reads every file as a load does, of earlier revisions too.

        Returns one sentence for each that is damaged or holds what cannot be computed with.
        """
        damage = []
        checks = list(self._checks())
        for done, check in enumerate(checks):
            progress("verifying", done, len(checks))
            try:
                check()
            except IntegrityError as error:
                damage.append(str(error))
        progress("verifying", len(checks), len(checks))
        return damage

    def _checks(self) -> Iterator[Callable[[], object]]:
        """Yields a check for each file of the manifest."""
        manifest = self.manifest
        for path in manifest.files:
            if path == TOKENIZER_FILE:
                yield self.load_tokenizer
                continue
            shaped = manifest.calibration is None or path != manifest.calibration.file
            yield partial(self._read_through, path, manifest.backbone.parameter_shapes() if shaped else None)
        for entry in manifest.all_entries():
            if entry.combination is None:
                whole = self.layout_of(entry).packed_tensors
                yield partial(self._read_through, entry.experts_file, self._expert_shapes(entry), whole)
            elif entry.changes_file is not None:
                yield partial(self._read_through, entry.changes_file, None)
            yield partial(self._load_head, entry)

    def _read_through(self, path: str, shapes: Shapes | None, whole: Collection[str] = ()) -> None:
        for _ in self._read(path, shapes, whole):
            pass  # it is kept no longer than until the next comes

    def _read(
        self, path: str, shapes: Shapes | None = None, whole: Collection[str] = ()
    ) -> Iterator[tuple[str, Tensor]]:
        """Reads a file of tensors of finite numbers, of these shapes if any are said, in the file's order.

        The tensors `whole` hold whole numbers. Raises IntegrityError; only after the last tensor is it known
        that none is to be raised.
        """
        with self.opened(path) as file:
            yield from self._read_open(file, path, shapes, whole)

    def _read_open(
        self, file: RegularFile, path: str, shapes: Shapes | None, whole: Collection[str] = ()
    ) -> Iterator[tuple[str, Tensor]]:
        """Reads the file of a path, which is open, as `_read` does."""
        digest, problem = hashlib.sha256(), ""
        try:
            tensors = StoredTensors(path, TensorFile(file, whole=whole))
            if shapes is not None:
                tensors.check_shapes(shapes)
            for name, tensor in tensors.file.read_in_order(digest):
                problem = problem or unusable_numbers(name, tensor)
                yield name, tensor
        except TensorFileError as error:
            self._check_hash(path, self._hash_of(path, file))  # which explains more
            raise IntegrityError(f"{path} cannot be used: {error}") from error
        except OSError as error:
            raise self._unreadable(path, error) from error
        except IntegrityError:
            self._check_hash(path, self._hash_of(path, file))
            raise
        self._check_hash(path, digest.hexdigest())
        if problem:
            raise IntegrityError(f"{path} cannot be used: {problem}")

    @contextmanager
    def checked_file(self, path: str) -> Iterator[RegularFile]:
        """Opens a file of the store whose hash was found right; it is read through the same descriptor."""
        with self.opened(path) as file:
            self._check_hash(path, self._hash_of(path, file))
            yield file
            if not file.is_as_it_was:
                raise IntegrityError(f"{path} in {self.files.url} was changed while it was read")

    @contextmanager
    def tensors(self, path: str, whole: Collection[str] = ()) -> Iterator[StoredTensors]:
        """Opens a checked file of tensors, whatever their names and shapes; those of `whole` numbers."""
        with self.checked_file(path) as file:
            try:
                tensors = TensorFile(file, whole=whole)
            except TensorFileError as error:
                raise IntegrityError(f"{path} cannot be used: {error}") from error
            yield StoredTensors(path, tensors)

    @contextmanager
    def encoder_file(self, path: str) -> Iterator[StoredTensors]:
        """Opens a checked file that holds every parameter of the encoder."""
        with self.tensors(path) as tensors:
            tensors.check_shapes(self.manifest.backbone.parameter_shapes())
            yield tensors

    @contextmanager
    def experts_file(self, entry: TaskEntry) -> Iterator[StoredTensors]:
        """Opens a checked file that holds a task's blocks and deltas, of the manifest's ranks."""
        with self.tensors(entry.experts_file, self.layout_of(entry).packed_tensors) as tensors:
            tensors.check_shapes(self._expert_shapes(entry))
            yield tensors

    def _expert_shapes(self, entry: TaskEntry) -> Shapes:
        specs = self.layout_of(entry).tensor_specs(self.layout.ranks_of(entry))
        return {key: spec.shape for key, spec in specs.items()}

    def _load_encoder(self, path: str) -> dict[str, Tensor]:
        shapes = self.manifest.backbone.parameter_shapes()
        found = dict(self._read(path, shapes))
        return {name: found[name] for name in shapes}

    def _check_hash(self, path: str, found: str) -> None:
        if found != self._hashes[path]:
            raise IntegrityError(
                f"{path} in {self.files.url} is damaged: its SHA-256 is not the one in the manifest"
            )

    def _hash_of(self, path: str, file: RegularFile) -> str:
        try:
            return sha256_of(file)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: OSError) -> IntegrityError:
        remedy = "; raise the limit of open files (ulimit -n)" if error.errno == errno.EMFILE else ""
        return IntegrityError(f"{path} in {self.files.url} cannot be read: {error.strerror or error}{remedy}")

    @contextmanager
    def opened(self, path: str) -> Iterator[RegularFile]:
        """Opens a file of the store, whose content is not checked. Raises IntegrityError where it cannot."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(self.files.opened(path))
            except FileNotFoundError as error:
                raise IntegrityError(f"{path} is missing from {self.files.url}") from error
            except OSError as error:
                raise self._unreadable(path, error) from error
            yield file

    def kept_open(self, path: str) -> RegularFile:
        """Opens a file of the store that outlives its name. Raises IntegrityError where it cannot."""
        with self.opened(path) as file:
            try:
                return RegularFile(file.duplicate())
            except OSError as error:
                raise self._unreadable(path, error) from error


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of a checked file of a store: whatever is wrong with one is an IntegrityError."""

    path: str
    file: TensorFile

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """The dtype and shape of every tensor."""
        return self.file.specs

    def read(self, name: str) -> Tensor:
        """Reads a tensor of finite numbers."""
        try:
            return self.file.read_finite(name)
        except TensorFileError as error:
            raise IntegrityError(f"{self.path} cannot be used: {error}") from error

    def check_shapes(self, expected: Shapes) -> None:
        """Raises IntegrityError unless there are exactly the tensors that the manifest implies."""
        if unmatched := sorted(self.specs.keys() ^ expected.keys()):
            raise IntegrityError(
                f"{self.path} does not fit the manifest: {unmatched[0]} is missing or unexpected"
            )
        for name, shape in expected.items():
            found = self.specs[name].shape
            if found != shape:
                raise IntegrityError(
                    f"{self.path} does not fit the manifest: {name} has shape {list(found)}, "
                    f"expected {list(shape)}"
                )
