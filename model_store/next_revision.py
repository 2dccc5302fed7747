"""A store's next revision: made and looked at beside the store, which it becomes when it is promoted.

    add_task("my-store#next", task, replace=True)  # nobody who reads `my-store` sees it
    promote("my-store")                            # or discard("my-store")

It is a store like any other to whoever reads `my-store#next`. One that was made from an earlier revision of
the store than the present one would undo what has changed since, and cannot be promoted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mass_serve.model_store.changing import StoreUrl
from mass_serve.model_store.errors import ManifestError, StoreError
from mass_serve.model_store.format.file_names import MANIFEST_FILE, SIGNATURE_FILE
from mass_serve.model_store.format.manifest import parse_manifest
from mass_serve.model_store.next_store import files_of_store
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.next_files import NextFiles, is_next_file, signature_of
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import is_ours, writing_errors_explained


def promote(url: StoreUrl, revision: str | None = None) -> Store:
    """Makes a store's next revision the store, with the signature that it may have.

    The manifest is replaced at once, and the signature after it: where that was interrupted, the next call
    does the rest. Raises StoreError where there is no next revision, or it is another than `revision`, and
    StoreLockedError.
    """
    with _next_files(url) as files:
        if _finish_promotion(files.store) and not files.is_there:
            return Store.open_files(files.store)
        _refuse_missing(files)
        manifest = parse_manifest(content := files.read_bytes(MANIFEST_FILE))
        if revision not in (None, manifest.store_revision):
            raise StoreError(
                f"{files.url} was changed meanwhile, from revision {revision} to {manifest.store_revision}:"
                " compare it again"
            )
        files.store.write_bytes(MANIFEST_FILE, content)
        _finish_promotion(files.store)
        _delete(files.store, _next_manifests(files.store))
        return Store(files.store, manifest)


def discard(url: StoreUrl) -> Store:
    """Deletes what there is of a store's next revisions, be they of earlier ones, and returns the store.

    Raises StoreError where there is none, and StoreLockedError.
    """
    with _next_files(url) as files:
        store = Store.open_files(files.store)
        found = _next_manifests(files.store)
        if not found:
            _refuse_missing(files)
        theirs = {path for name in found for path in _named_files(files.store, name)}
        _delete(files.store, found)  # first: no manifest may name files that are gone
        _delete(files.store, sorted(path for path in theirs - {*store.manifest.all_files()} if is_ours(path)))
        return store


def _finish_promotion(store: StoreFiles) -> bool:
    """Gives a store the signature of the next revision that it has become, and tells whether it is one."""
    content = store.read_bytes(MANIFEST_FILE)
    promoted = [path for path in _next_manifests(store) if store.read_bytes(path) == content]
    for path in promoted:
        signed = store.exists(signature := signature_of(path))
        if signed:
            store.write_bytes(SIGNATURE_FILE, store.read_bytes(signature))
        _delete(store, [path, signature] if signed else [path])
    return bool(promoted)


@contextmanager
def _next_files(url: StoreUrl) -> Iterator[NextFiles]:
    """Gives the files of the next revision of a store that there is, under its lock."""
    files = NextFiles(files_of_store(url))
    Store.open_files(files.store)  # before the lock, so that none is left where no store is
    with writing_errors_explained(files.store.url), files.lock():
        yield files


def _refuse_missing(files: NextFiles) -> None:
    if files.is_there:
        return
    if _next_manifests(files.store):
        raise StoreError(
            f"{files.store.url} was changed since its next revision was made: discard that, and make it again"
        )
    raise StoreError(
        f"{files.store.url} has no next revision: make one with the commands that change a store,"
        f" such as `task add {files.url} NAME MODEL`"
    )


def _next_manifests(files: StoreFiles) -> list[str]:
    """Returns the manifests, and their signatures, of next revisions of this and of earlier revisions."""
    return [path for path in files.list() if is_next_file(path)]


def _named_files(files: StoreFiles, manifest: str) -> Sequence[str]:
    try:
        return [*parse_manifest(files.read_bytes(manifest)).all_files()]
    except ManifestError:  # a signature, or of a later version of this program
        return []


def _delete(files: StoreFiles, paths: Sequence[str]) -> None:
    for path in paths:
        files.delete(path)
