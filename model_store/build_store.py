"""Building a store: checkpoints in, one task factored after the other, the manifest last.

A build that is killed leaves finished files and a journal behind. The same command takes them up again;
a command with other inputs starts over. Changing a finished store is `model_store.revisions`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.errors import StoreExistsError
from mass_serve.model_store.format.file_names import MANIFEST_FILE, PRETRAINED_FILE, TOKENIZER_FILE
from mass_serve.model_store.format.groups import Groups
from mass_serve.model_store.format.journal import JOURNAL_FILE, Journal, load_journal
from mass_serve.model_store.format.manifest import Manifest, MergedBaseForm
from mass_serve.model_store.format.origin import Origin
from mass_serve.model_store.format.rank_rules import BudgetRule, rule_keys
from mass_serve.model_store.format.tensor_files import TensorSpec, write_tensors
from mass_serve.model_store.measured import MeasureStore, unmeasured, with_measured
from mass_serve.model_store.merged_base import is_slow_to_rebuild
from mass_serve.model_store.plan import BuildPlan, TaskInput, plan_build
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.rank_budget import level_of_budget
from mass_serve.model_store.storage.files import LOCK_FILE, PARTIAL_SUFFIX, StoreFiles
from mass_serve.model_store.storage.next_files import NextFiles
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.storage.regular_files import sha256_of
from mass_serve.model_store.store import Store
from mass_serve.model_store.task_distance import measured_distances
from mass_serve.model_store.writing import commit, is_ours, revision_of, write_task, writing_errors_explained

_NO_REVISION = "0" * 12


def build(
    pretrained: Path,
    tasks: Sequence[TaskInput],
    out: str | os.PathLike[str],
    options: BuildOptions = BuildOptions(),  # noqa: B008 - frozen
    progress: Progress = silent,
    modes: Collection[str] | None = None,
    origin: Origin | None = None,
    measure: MeasureStore = unmeasured,
    groups: Groups | None = None,
) -> Store:
    """Makes a store at `out` (a new or empty folder, or a URL) from a pretrained and fine-tuned models.

    One parameter of two models is in memory at a time, and the blocks of one task. A budget for the blocks of
    all tasks takes a pass over all spectra before. Only the
    router knows which modes there are: with `modes=router.MODE_NAMES` that of the options must be one.
    `origin` is the pretrained model's, where it was fetched by its name. `measure` measures what
    the manifest keeps of a store without data, with its encoder in memory. `groups` are named ones of tasks.
    Raises StoreExistsError where `out` holds something else, CheckpointError or TaskError for unusable
    input, a task that is too far from the pretrained model among it, before anything is written;
    StoreLockedError, and StoreError when `out` cannot be written.
    """
    refuse_taken(out)
    plan = plan_build(pretrained, tasks, options, modes, origin, groups)
    files = open_files(out)
    distances = _distances(files, plan, options.force, progress)
    with writing_errors_explained(files.url), files.lock():
        _refuse_taken(files)
        if files.exists(MANIFEST_FILE):
            return _finish_committed(files, plan)
        journal = _resume_or_start(files, plan)
        journal = _write_pretrained(files, plan, journal, progress)
        plan, journal = _with_level(files, plan, distances, journal, progress)
        journal = _write_tasks(files, plan, distances, journal, progress)
        draft = _draft(plan, _write_tokenizer(files, plan), journal, origin)
        form = _merged_base_form(plan, draft)
        revision = revision_of(draft.to_bytes().decode(), form)
        draft = with_measured(files, draft, measure, progress)
        store = commit(files, draft, form, progress, revision)
        # Last: with both there, a build that is killed here is found finished by the next one.
        files.delete(JOURNAL_FILE)
        return store


def refuse_taken(out: str | os.PathLike[str]) -> None:
    """Raises StoreExistsError unless `out` is free or holds an unfinished build; to ask before long work."""
    files = open_files(out)
    with writing_errors_explained(files.url):
        _refuse_taken(files)


def _refuse_taken(files: StoreFiles) -> None:
    if isinstance(files, NextFiles):
        raise StoreExistsError(f"{files.url} is the next revision of a store, and a new store needs a folder")
    if load_journal(files) is not None:
        return
    if files.exists(MANIFEST_FILE):
        raise StoreExistsError(
            f"there is a store at {files.url} already: choose another folder, or change it with `task add`"
        )
    if foreign := [path for path in files.list() if path not in (LOCK_FILE, JOURNAL_FILE + PARTIAL_SUFFIX)]:
        raise StoreExistsError(f"{files.url} holds other files ({foreign[0]}): choose an empty folder")


def _finish_committed(files: StoreFiles, plan: BuildPlan) -> Store:
    """Ends a build that was killed between its manifest and the removal of its journal."""
    journal = load_journal(files)
    if journal is None or journal.fingerprint != plan.fingerprint:
        raise StoreExistsError(
            f"there is a store of other models at {files.url} already: choose another folder"
        )
    files.delete(JOURNAL_FILE)
    return Store.open_files(files)


def _resume_or_start(files: StoreFiles, plan: BuildPlan) -> Journal:
    """Returns the journal to go on from, after removing every file that it does not vouch for."""
    journal = load_journal(files)
    if journal is None or journal.fingerprint != plan.fingerprint or not _is_intact(files, journal):
        journal = Journal(fingerprint=plan.fingerprint)
        journal.save(files)
    kept = {JOURNAL_FILE, *journal.files()}
    for path in files.list():
        if path not in kept and is_ours(path):
            files.delete(path)
    return journal


def _is_intact(files: StoreFiles, journal: Journal) -> bool:
    for path, digest in journal.files().items():
        if not files.exists(path):
            return False
        with files.opened(path) as file:
            if sha256_of(file) != digest:
                return False
    return True


def _write_pretrained(files: StoreFiles, plan: BuildPlan, journal: Journal, progress: Progress) -> Journal:
    if journal.pretrained_sha256 is not None:
        return journal
    progress("copying the pretrained model", 0, 1)
    specs = {
        name: TensorSpec(plan.pretrained.dtype(name), shape)
        for name, shape in plan.pretrained.architecture.parameter_shapes().items()
    }
    with files.writing(PRETRAINED_FILE) as file:
        digest = write_tensors(file, specs, plan.pretrained.parameter)
    progress("copying the pretrained model", 1, 1)
    journal = journal.model_copy(update={"pretrained_sha256": digest})
    journal.save(files)
    return journal


def _distances(files: StoreFiles, plan: BuildPlan, force: bool, progress: Progress) -> dict[str, float]:
    """Measures how far each task is from the pretrained model, before there is any long work or file.

    Of the tasks that the journal of the same build has finished it is known.
    """
    with writing_errors_explained(files.url):
        journal = load_journal(files)
    finished = journal.finished if journal is not None and journal.fingerprint == plan.fingerprint else {}
    known = {name: entry.distance for name, entry in finished.items() if entry.distance is not None}
    changes = {task.name: task.checkpoint.change for task in plan.tasks if task.name not in known}
    names = plan.layout.backbone.parameter_shapes()
    return known | measured_distances(names, plan.pretrained.parameter, changes, force, progress)


def _with_level(
    files: StoreFiles, plan: BuildPlan, distances: Mapping[str, float], journal: Journal, progress: Progress
) -> tuple[BuildPlan, Journal]:
    """Finds the level of a budget, which depends on all tasks, or takes it from the journal."""
    factoring = plan.layout.factoring
    if not isinstance(factoring.rule, BudgetRule):
        return plan, journal
    if journal.level is None:
        base, changes = plan.pretrained, [(t.checkpoint.change, distances[t.name]) for t in plan.tasks]
        budget = factoring.rule.times * base.nbytes
        level = level_of_budget(plan.layout, budget, base.parameter, changes, progress)
        journal = journal.model_copy(update={"level": level})
        journal.save(files)
    rule = factoring.rule.model_copy(update={"level": journal.level})
    layout = replace(plan.layout, factoring=replace(factoring, rule=rule))
    return replace(plan, layout=layout), journal


def _write_tasks(
    files: StoreFiles, plan: BuildPlan, distances: Mapping[str, float], journal: Journal, progress: Progress
) -> Journal:
    for task in plan.tasks:
        if task.name not in journal.finished:
            base, distance = plan.pretrained.parameter, distances[task.name]
            entry = write_task(
                files, plan.layout, base, task, distance, progress, plan.exact, named_by_content=True
            )
            journal = journal.with_task(entry)
            journal.save(files)
    return journal


def _write_tokenizer(files: StoreFiles, plan: BuildPlan) -> dict[str, str]:
    """Writes the tokenizer, if there is one, and returns its hash by its name."""
    if plan.prepared.tokenizer is None:
        return {}
    files.write_bytes(TOKENIZER_FILE, plan.prepared.tokenizer.content)
    return {TOKENIZER_FILE: plan.prepared.tokenizer.sha256}


def _draft(
    plan: BuildPlan, tokenizer: Mapping[str, str], journal: Journal, origin: Origin | None
) -> Manifest:
    """Makes the manifest of the store, but for its merged base and its revision."""
    layout, factoring = plan.layout, plan.layout.factoring
    draft = Manifest(
        store_revision=_NO_REVISION,
        backbone=layout.backbone,
        preprocessing=plan.prepared.preprocessing,
        router=plan.router,
        **rule_keys(factoring.rule),
        patch_embedding=factoring.patch_embedding,
        block_dtype=layout.block_dtype,
        block_format=layout.own_format,
        factored_parameters=tuple(factoring.shapes),
        merged_base="rebuilt",
        files={PRETRAINED_FILE: journal.files()[PRETRAINED_FILE], **tokenizer},
        tasks=tuple(journal.finished[task.name] for task in plan.tasks),
        pretrained_origin=origin,
        groups=plan.groups,
    )
    return draft.model_copy(update={"merged_base_method": plan.merged_base_method})


def _merged_base_form(plan: BuildPlan, draft: Manifest) -> MergedBaseForm:
    """Returns whether to store the merged base: by default where it is needed and slow to rebuild."""
    if plan.merged_base != "auto":
        return plan.merged_base
    needed = plan.router.first_pass == "merged_base"
    ranks = [plan.layout.ranks_of(task) for task in draft.routed_tasks]
    return "stored" if needed and is_slow_to_rebuild(ranks) else "rebuilt"
