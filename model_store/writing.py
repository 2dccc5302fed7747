"""The steps that building and changing a store share. Each makes new files only; `commit` comes last."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.experts import ExpertLayout, ReadParameter, factor_task
from mass_serve.model_store.format.file_names import (
    CALIBRATION_PREFIX,
    MANIFEST_FILE,
    MERGED_BASE_PREFIX,
    PRETRAINED_FILE,
    SIGNATURE_FILE,
    TASKS_PREFIX,
    TOKENIZER_FILE,
    task_folder,
)
from mass_serve.model_store.format.journal import JOURNAL_FILE
from mass_serve.model_store.format.manifest import Manifest, MergedBaseForm, parse_manifest
from mass_serve.model_store.format.tensor_files import TensorSpec, file_contents
from mass_serve.model_store.merged_base import write_merged_base
from mass_serve.model_store.plan import PlannedTask
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.storage.files import PARTIAL_SUFFIX, StoreFiles
from mass_serve.model_store.storage.next_files import is_next_file
from mass_serve.model_store.store import Store

_REVISION = "[0-9a-f]{8,64}"
_REVISION_FILE = re.compile(
    rf"({MERGED_BASE_PREFIX}|{CALIBRATION_PREFIX}){_REVISION}\.safetensors"
    rf"|{TASKS_PREFIX}[^/]+/{_REVISION}/(experts|coefficients|head)\.safetensors"
)


def new_revision() -> str:
    """Returns a name that no earlier revision has."""
    return secrets.token_hex(6)


def revision_of(*content: str) -> str:
    """Returns the name of a revision of a new store, of its content: so equal builds are equal bytes.

    Revisions that come later have random names: no content of theirs tells them from an earlier one's.
    """
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def is_ours(path: str) -> bool:
    """Tells whether a file in a store's folder is one that writing a store makes, complete or partial."""
    name = path.removesuffix(PARTIAL_SUFFIX)
    fixed = (MANIFEST_FILE, SIGNATURE_FILE, JOURNAL_FILE, PRETRAINED_FILE, TOKENIZER_FILE)
    return name in fixed or is_next_file(name) or bool(_REVISION_FILE.fullmatch(name))


@contextmanager
def writing_errors_explained(url: str) -> Iterator[None]:
    """Turns what the operating system refuses into one sentence. What was there stays as it was."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"no space is left at {url}: what was there is as it was; "
                "free some space and run the same command again"
            ) from error
        raise StoreError(f"{url} cannot be written: {error}") from error


def write_task(
    files: StoreFiles,
    layout: ExpertLayout,
    pretrained: ReadParameter,
    task: PlannedTask,
    distance: float,
    progress: Progress,
    exact: bool,
    named_by_content: bool = False,
) -> TaskEntry:
    """Factors one task and writes a new revision of it; the manifest does not know it yet.

    With `named_by_content` its name is that of `revision_of`.
    """
    stage = f"factoring {task.name}"
    layout = layout if task.block_format is None else layout.of_format(task.block_format)
    factored = factor_task(
        layout.of_task(distance), pretrained, task.checkpoint.change, stage, progress, exact
    )
    ranks = layout.factoring.own_ranks(factored.ranks)
    experts = _TensorFile(layout.tensor_specs(factored.ranks), factored.tensors)
    head = _TensorFile(task.head.specs(), task.head.tensors)
    hashes = experts.sha256(), head.sha256()
    labelled = (*task.labels, *map(str, task.head.thresholds or ()))
    revision = revision_of(*hashes, *labelled) if named_by_content else new_revision()
    folder = task_folder(task.name, revision)
    paths = f"{folder}/experts.safetensors", f"{folder}/head.safetensors"
    for path, content in zip(paths, (experts, head), strict=True):
        with files.writing(path) as file:
            file.writelines(content.parts())
    return TaskEntry(
        name=task.name,
        revision=revision,
        labels=task.labels,
        head=task.head.spec,
        rank=layout.factoring.rank_of(ranks),
        individual_accuracy=task.individual_accuracy,
        distance=distance,
        energy_kept=factored.energy_kept,
        files=dict(zip(paths, hashes, strict=True)),
        ranks=ranks,
        adapter=task.checkpoint.is_adapter,
        origins=task.origins,
        block_format=layout.own_format,
    )


@dataclass(frozen=True)
class _TensorFile:
    """A file to be, whose tensors are in memory. Its hash is known first: it names the folder."""

    specs: Mapping[str, TensorSpec]
    tensors: Mapping[str, Tensor]

    def parts(self) -> Iterator[bytes | memoryview]:
        return file_contents(self.specs, self.tensors.__getitem__)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for part in self.parts():
            digest.update(part)
        return digest.hexdigest()


def copy_file(store: Store, path: str, copy: str, files: StoreFiles | None = None) -> None:
    """Copies a file of the store, whose hash is checked, to another name in it, or in `files`.

    Raises IntegrityError.
    """
    with store.checked_file(path) as source, (files or store.files).writing(copy) as target:
        target.writelines(source.chunks())


def commit(
    files: StoreFiles,
    draft: Manifest,
    form: MergedBaseForm,
    progress: Progress = silent,
    revision: str | None = None,
) -> Store:
    """Makes `draft`, a manifest without a merged base, the store: its merged base first, where it is to be
    stored, then the manifest, whose atomic replacement is the moment at which the store changes.

    The store's revision is a new one unless it is said. Without a task that is routed nothing is merged.
    """
    # The file's name is new too: readers of the version before go on with the merged base that they have.
    revision = revision or new_revision()
    update: dict[str, object] = {"store_revision": revision}
    path = f"{MERGED_BASE_PREFIX}{revision}.safetensors"
    if form == "stored" and draft.routed_tasks:
        digest = write_merged_base(Store(files, draft), path, progress)
        update |= {"merged_base": form, "files": {**draft.files, path: digest}}
    return publish(files, draft.model_copy(update=update))


def publish(files: StoreFiles, draft: Manifest) -> Store:
    """Makes `draft`, whose files are all there, the store."""
    # Parsing what is about to be written proves that the store can be opened again.
    manifest = parse_manifest(draft.to_bytes())
    files.write_bytes(MANIFEST_FILE, manifest.to_bytes())
    return Store(files, manifest)
