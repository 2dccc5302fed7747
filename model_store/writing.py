"""The steps that building and changing a store share. Each makes new files only; `commit` comes last."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

from torch import Tensor

from mass_serve.merging import TaskChange, merged_parameter
from mass_serve.merging.threads import one_thread_per_operation
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.experts import ExpertLayout, ReadParameter, factor_task
from mass_serve.model_store.format.journal import JOURNAL_FILE
from mass_serve.model_store.format.manifest import (
    CALIBRATION_PREFIX,
    MANIFEST_FILE,
    MERGED_BASE_PREFIX,
    PRETRAINED_FILE,
    SIGNATURE_FILE,
    TASKS_PREFIX,
    HeadSpec,
    Manifest,
    MergedBaseForm,
    TaskEntry,
    parse_manifest,
    task_folder,
)
from mass_serve.model_store.format.tensor_files import write_tensors
from mass_serve.model_store.plan import PlannedTask
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.storage.files import PARTIAL_SUFFIX, StoreFiles
from mass_serve.model_store.store import Store, StoredTensors

_REVISION = "[0-9a-f]{8,64}"
_REVISION_FILE = re.compile(
    rf"({MERGED_BASE_PREFIX}|{CALIBRATION_PREFIX}){_REVISION}\.safetensors"
    rf"|{TASKS_PREFIX}[^/]+/{_REVISION}/(experts|head)\.safetensors"
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
    fixed = (MANIFEST_FILE, SIGNATURE_FILE, JOURNAL_FILE, PRETRAINED_FILE)
    return name in fixed or bool(_REVISION_FILE.fullmatch(name))


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
    finetuned = task.checkpoint.over(pretrained)
    factored = factor_task(layout, pretrained, finetuned, f"factoring {task.name}", progress, exact)
    revision = _content_of(layout, factored.tensors, task) if named_by_content else new_revision()
    folder = task_folder(task.name, revision)
    experts_file, head_file = f"{folder}/experts.safetensors", f"{folder}/head.safetensors"
    with files.writing(experts_file) as file:
        experts_hash = write_tensors(file, layout.tensor_specs(), factored.tensors.__getitem__)
    with files.writing(head_file) as file:
        head_hash = write_tensors(file, task.head.specs(), task.head.tensors.__getitem__)
    return TaskEntry(
        name=task.name,
        revision=revision,
        labels=task.labels,
        head=HeadSpec(kind=task.head.kind),
        rank=layout.rank,
        individual_accuracy=task.individual_accuracy,
        distance=distance,
        energy_kept=factored.energy_kept,
        files={experts_file: experts_hash, head_file: head_hash},
        origins=task.origins,
    )


def _content_of(layout: ExpertLayout, experts: Mapping[str, Tensor], task: PlannedTask) -> str:
    """Names a revision after the files that it will have, which lie in a folder of its name."""
    nowhere = _Nowhere()
    files = (
        write_tensors(nowhere, layout.tensor_specs(), experts.__getitem__),
        write_tensors(nowhere, task.head.specs(), task.head.tensors.__getitem__),
    )
    return revision_of(*files, *task.labels)


class _Nowhere(io.BytesIO):
    """A file that keeps nothing."""

    def write(self, content: object) -> int:  # noqa: ARG002
        return 0


@dataclass(frozen=True)
class _ExpertsInFile:
    """The changes of one task, read when asked for."""

    layout: ExpertLayout
    tensors: StoredTensors

    def change(self, name: str) -> TaskChange:
        return self.layout.read_change(name, self.tensors.read)


def commit(
    files: StoreFiles,
    draft: Manifest,
    form: MergedBaseForm,
    progress: Progress = silent,
    revision: str | None = None,
) -> Store:
    """Makes `draft`, a manifest without a merged base, the store: its merged base first, where it is to be
    stored, then the manifest, whose atomic replacement is the moment at which the store changes.

    The store's revision is a new one unless it is said.
    """
    # The file's name is new too: readers of the version before go on with the merged base that they have.
    revision = revision or new_revision()
    update: dict[str, object] = {"store_revision": revision}
    path = f"{MERGED_BASE_PREFIX}{revision}.safetensors"
    if form == "stored":
        digest = _write_merged_base(Store(files, draft), path, progress)
        update |= {"merged_base": form, "files": {**draft.files, path: digest}}
    return publish(files, draft.model_copy(update=update))


def publish(files: StoreFiles, draft: Manifest) -> Store:
    """Makes `draft`, whose files are all there, the store."""
    # Parsing what is about to be written proves that the store can be opened again.
    manifest = parse_manifest(draft.to_bytes())
    files.write_bytes(MANIFEST_FILE, manifest.to_bytes())
    return Store(files, manifest)


def _write_merged_base(store: Store, path: str, progress: Progress) -> str:
    """Merges all tasks from their blocks, holding one parameter at a time. Returns the SHA-256."""
    names = list(store.manifest.backbone.parameter_shapes())
    done = count()
    with ExitStack() as stack:
        stack.enter_context(one_thread_per_operation())
        pretrained = stack.enter_context(store.encoder_file(PRETRAINED_FILE))
        experts = [
            _ExpertsInFile(store.layout, stack.enter_context(store.experts_file(task)))
            for task in store.manifest.tasks
        ]

        def merged(name: str) -> Tensor:
            progress("merging all tasks", next(done), len(names))
            changes = [expert.change(name) for expert in experts]
            return merged_parameter(pretrained.read(name), changes)

        file = stack.enter_context(store.files.writing(path))
        digest = write_tensors(file, pretrained.specs, merged)
    progress("merging all tasks", len(names), len(names))
    return digest
