"""A store's tasks cut to its budget, from what is stored of them: the fine-tuned models are not needed again.

The blocks of a task are sorted by their singular values, so that its truncated decomposition of fewer
triplets is a slice of them. Each task that is cut gets a new revision; the one before is kept for a rollback
until the store is pruned.

    compact_store("my-store")         # to the budget that it was built with, or to 1/T
    compact_store("my-store", "2/T")  # to another one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mass_serve.model_store.changing import StoreUrl, changing, commit_tasks, with_earlier
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.experts import TaskExperts
from mass_serve.model_store.format.file_names import task_folder
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.model_store.format.rank_choice import norm_of
from mass_serve.model_store.format.rank_rules import BudgetRule, RankRule, RatioRule, rule_keys
from mass_serve.model_store.format.tensor_files import write_tensors
from mass_serve.model_store.measured import MeasureStore, unmeasured, with_measured
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.rank_budget import TaskMove, rule_within_budget
from mass_serve.model_store.rank_options import ratio_rule
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import copy_file, new_revision

# A store may have this many times its budget before a task that is added has the others cut: one task more
# of many does not have all of them written anew.
SLACK = 1.05


def compact_store(
    url: StoreUrl,
    compression_ratio: float | str | None = None,
    progress: Progress = silent,
    measure: MeasureStore = unmeasured,
) -> Store:
    """Cuts every task that keeps more than the store's budget, or than another compression ratio, says.

    A store whose ratio does not depend on the number of its tasks gets the budget 1/T. A task that keeps less
    stays as it is, and where all do and the rule is the store's, so does the store. `measure` is that of
    `build_store.build`. Raises StoreError for a ratio that leaves the encoder's own matrices no vector, and
    for a rule without a budget; IntegrityError; StoreLockedError.
    """
    with changing(url) as store:
        if not any(task.has_blocks for task in store.manifest.tasks):
            return store
        cut = _cut_to(store, _wanted_rule(store, compression_ratio, progress), progress)
        if cut.manifest == store.manifest:
            return store
        draft = with_measured(store.files, cut.manifest, measure, progress)
        return commit_tasks(cut, draft.tasks, draft.history, progress)


def _wanted_rule(store: Store, compression_ratio: float | str | None, progress: Progress) -> RankRule:
    rule, tasks = store.layout.factoring.rule, [task for task in store.manifest.tasks if task.has_blocks]
    if compression_ratio is not None:
        return _leaving_a_vector(ratio_rule(compression_ratio, len(tasks)), store.manifest.backbone.width)
    if isinstance(rule, RatioRule) and rule.ratio_budget is None:
        rule = rule.model_copy(update={"ratio_budget": 1.0})
    if isinstance(rule, RatioRule | BudgetRule):
        return rule_within_budget(store, rule, tasks, progress=progress)
    raise StoreError(
        f"the rule of {store.files.url} is {rule}, of each task for itself, and no budget of all of them:"
        " give a compression ratio to cut them to"
    )


def _leaving_a_vector(rule: RatioRule, width: int) -> RatioRule:
    if width * rule.compression_ratio < 1:
        raise StoreError(
            f"the {rule} leaves less than one singular vector of a matrix of {width} x {width}: give at"
            f" least {1 / width:.2g}"
        )
    return rule


def within_budget(store: Store, name: str, added: TaskMove, progress: Progress) -> Store:
    """Returns the store as it is to be before a task of this name is written to it: within its budget then.

    Where there is a task of that name, it is to be replaced, and not cut. New files are written, and no
    manifest.
    """
    rule = store.layout.factoring.rule
    if isinstance(rule, RatioRule | BudgetRule):
        others = [task for task in store.manifest.tasks if task.has_blocks and task.name != name]
        within = rule_within_budget(store, rule, others, added, SLACK, progress)
        return store if within == rule else _cut_to(store, within, progress, leaving=name)
    return store


def _cut_to(store: Store, rule: RankRule, progress: Progress, leaving: str | None = None) -> Store:
    """Returns the store by another rule for ranks: tasks that keep more are cut to it, all but `leaving`."""
    store = Store(store.files, _said_by(store, rule))
    manifest, count = store.manifest, len(store.manifest.tasks)
    for done, task in enumerate(store.manifest.tasks):
        progress("cutting tasks", done, count)
        if task.name != leaving and (cut := _cut(store, task)) is not None:
            tasks = tuple(cut if one is task else one for one in manifest.tasks)
            manifest = manifest.model_copy(update={"tasks": tasks, "history": with_earlier(manifest, task)})
    progress("cutting tasks", count, count)
    return Store(store.files, manifest)


def _said_by(store: Store, rule: RankRule) -> Manifest:
    """Returns the manifest with another rule, by which every task has the ranks that it has."""
    factoring = replace(store.layout.factoring, rule=rule)

    def said(entries: Sequence[TaskEntry]) -> tuple[TaskEntry, ...]:
        ranks = [factoring.own_ranks(store.layout.ranks_of(entry)) for entry in entries]
        return tuple(
            entry.model_copy(update={"ranks": own, "rank": factoring.rank_of(own)})
            for entry, own in zip(entries, ranks, strict=True)
        )

    manifest = store.manifest
    history = {name: said(earlier) for name, earlier in manifest.history.items()}
    return manifest.model_copy(update={"tasks": said(manifest.tasks), "history": history, **rule_keys(rule)})


def _cut(store: Store, task: TaskEntry) -> TaskEntry | None:
    """Writes a new revision of a task by the store's rule; None where it keeps no more than that.

    A created task has nothing to cut: it follows the tasks that it is made of.
    """
    if not task.has_blocks:
        return None
    layout, own = store.layout_of(task), store.layout.ranks_of(task)
    prescribed = layout.factoring.prescribed()
    if prescribed is not None and all(own[name] <= rank for name, rank in prescribed.items()):
        return None
    experts = store.load_experts(task.name)
    ranks = layout.of_task(task.distance or 1.0).kept_ranks(experts)
    if ranks == own:
        return None
    cut, revision = experts.leading(ranks), new_revision()
    folder = task_folder(task.name, revision)
    path, head = f"{folder}/experts.safetensors", f"{folder}/head.safetensors"
    with store.files.writing(path) as file:
        digest = write_tensors(file, layout.tensor_specs(ranks), layout.experts_tensors(cut).__getitem__)
    copy_file(store, task.head_file, head)
    said = layout.factoring.own_ranks(ranks)
    update = {
        "revision": revision,
        "files": {path: digest, head: task.files[task.head_file]},
        "ranks": said,
        "rank": layout.factoring.rank_of(said),
        "energy_kept": None if task.energy_kept is None else task.energy_kept * _kept_share(experts, cut),
        "exit_price": None,  # of the revision before
        "drawn_energies": None,
    }
    return task.model_copy(update=update)


def _kept_share(experts: TaskExperts, cut: TaskExperts) -> float:
    """The energy that is left of what a task had; 1 where it had none."""
    energy, kept = (
        sum(norm_of(vectors.s) ** 2 for vectors in one.singular_vectors.values()) for one in (experts, cut)
    )
    return kept / energy if energy else 1.0
