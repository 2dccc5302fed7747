"""A store in a few lines and a table, or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table

from mass_serve.backbone.architecture import PatchEmbedding, WordEmbedding, weight_of
from mass_serve.engine.known_mode import known_mode
from mass_serve.model_store.described_store import DescribedStore
from mass_serve.model_store.distance_warning import distance_warning
from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.entries import TaskEntry
from mass_serve.model_store.format.file_names import SIGNATURE_FILE
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.model_store.format.preprocessing import RIGHT, TextPreprocessing
from mass_serve.router.modes import MODE_NAMES, PAPER

# Of a store of hundreds, the first show what its tasks are like.
MOST_TASKS_SHOWN = 50
MOST_NAMES_IN_A_LINE = 20


def print_summary(
    store: DescribedStore, as_json: bool, every_task: bool = False, following: DescribedStore | None = None
) -> None:
    """Prints what a store holds, without reading its weights: of many tasks the first, or `every_task`.

    `following` is its next revision.
    """
    manifest = store.manifest
    next_revision = None if following is None else following.manifest.store_revision
    sizes = {path: store.files.size(path) for path in manifest.all_files()}
    if as_json:
        content = {
            "store": store.files.url,
            "bytes": sum(sizes.values()),
            "next_revision": next_revision,
            "manifest": manifest.model_dump(mode="json"),
        }
        typer.echo(json.dumps(content, indent=2))
        return
    typer.echo(f"{store.files.url}: revision {manifest.store_revision}, {decimal(sum(sizes.values()))}")
    typer.echo(_encoder(manifest))
    if manifest.calibration is not None:
        typer.echo(_calibration(manifest, manifest.calibration.images))
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or pipe has no width to cut names to
    shown = manifest.tasks if every_task else manifest.tasks[:MOST_TASKS_SHOWN]
    console.print(_task_table(store, shown, sizes))
    if more := len(manifest.tasks) - len(shown):
        typer.echo(f"{more:,} more tasks, which --all and --json show; {_of_all(manifest.tasks)}")
    for line in (*group_lines(manifest), *_created_lines(shown)):
        typer.echo(line)
    if removed := [name for name in manifest.history if manifest.find_task(name) is None]:
        typer.echo(f"removed, kept until `task prune`: {in_a_line(removed)}")
    if following is not None and store.files.url != following.files.url:
        typer.echo(f"next revision, not in service: {next_revision}, which is {following.files.url}")


def group_lines(manifest: Manifest) -> list[str]:
    """Returns a line for each group of tasks, with those that it lacks because they were removed."""
    served = {task.name for task in manifest.tasks}
    return [
        f"group {name}: {in_a_line(_in_group(members, served))}" for name, members in manifest.groups.items()
    ]


def _created_lines(tasks: Iterable[TaskEntry]) -> list[str]:
    """Returns a line for each task that was created of labelled images, with what it is made of."""
    return [
        f"created {task.name}: {'a combination of ' + in_a_line(one.tasks) if one.tasks else 'a head alone'}"
        for task in tasks
        if (one := task.combination) is not None
    ]


def _in_group(members: Iterable[str], served: Collection[str]) -> list[str]:
    return [name if name in served else f"{name} (removed)" for name in members]


def in_a_line(names: Sequence[str]) -> str:
    """Returns names for a line, the first of many."""
    more = len(names) - MOST_NAMES_IN_A_LINE
    return ", ".join(names[:MOST_NAMES_IN_A_LINE]) + (f" and {more:,} more" if more > 0 else "")


def _of_all(tasks: Sequence[TaskEntry]) -> str:
    """Says what is to be known of all tasks of a large store at once."""
    ranks = [task.rank for task in tasks]
    return (
        f"of all {len(tasks):,}: {sum(len(task.labels) for task in tasks):,} labels,"
        f" ranks {min(ranks)} to {max(ranks)}"
    )


def warn_of_unknown_mode(manifest: Manifest) -> None:
    """Says on standard error that a store cannot be served as it is, where this version lacks its mode."""
    try:
        known_mode(manifest.router)
    except ManifestError:
        typer.echo(
            f"warning: this version has no mode {manifest.router.mode!r}: serve the store with --mode and "
            f"one of {', '.join(MODE_NAMES)}",
            err=True,
        )


def warn_of_distances(tasks: Iterable[TaskEntry]) -> None:
    """Says on standard error which tasks may not have been fine-tuned from the store's pretrained model."""
    for task in tasks:
        if warning := distance_warning(task.name, task.distance):
            typer.echo(f"warning: {warning}", err=True)


def warn_of_constant_routing(store: DescribedStore) -> None:
    """Says on standard error which tasks leave the paper's router nothing to tell images by.

    It compares as many directions of the matrix that its feature enters as every task changed there.
    """
    manifest = store.manifest
    router, parameter = manifest.router, weight_of(manifest.backbone.residual_linear(manifest.router.layer))
    with_blocks = [task for task in manifest.routed_tasks if task.has_blocks]
    blind = [task.name for task in with_blocks if not manifest.factoring.ranks_of(task.ranks)[parameter]]
    if router.mode == PAPER and blind and len(manifest.routed_tasks) > 1:
        typer.echo(
            f"warning: {' and '.join(blind)} left {parameter} alone, by which the mode {PAPER} routes: "
            "every image gets the same task. Build with another --router-layer, or take another --mode",
            err=True,
        )


def figures(task: TaskEntry) -> str:
    """Says what a task is, where it is no class of a whole input, and what building measured of it."""
    kind = "classifies tokens, " if task.head.each_token else ""
    kind = "gives any number of labels, " if task.head.is_multi_label else kind
    measured = f"distance from the base {_distance(task)}, energy kept {_energy_kept(task)}"
    return f"{kind}{measured}, price of an early exit {_exit_price(task)}"


def remind_to_sign(store: DescribedStore) -> None:
    """Says on standard error that a store which was signed has to be signed again, as it was changed."""
    if store.files.exists(SIGNATURE_FILE):
        typer.echo(
            f"the signature of {store.files.url} is of the revision before: sign it again with "
            "`mass-serve sign`, or servers that trust keys will not take the new one",
            err=True,
        )


def _encoder(manifest: Manifest) -> str:
    encoder = manifest.backbone
    return (
        f"encoder: {_input(manifest)}, "
        f"{encoder.depth} blocks of width {encoder.width}, pooling {encoder.pooling.pooled}; "
        f"router at block {manifest.router.layer}{_late_token(manifest)}; "
        f"mode {manifest.router.mode}, first pass {manifest.router.first_pass}{_late_mlps(manifest)}; "
        f"merged base {manifest.merged_base}{_merged_by(manifest)}; "
        f"blocks {_block_formats(manifest)}, {manifest.factoring.rule}"
    )


def _block_formats(manifest: Manifest) -> str:
    """The formats of the tasks' blocks, the store's own first, with how many tasks have another."""
    own = manifest.block_format or manifest.block_dtype
    counts = Counter(task.block_format or manifest.block_dtype for task in manifest.tasks if task.has_blocks)
    others = [f"{name} of {count} tasks" for name, count in sorted(counts.items()) if name != own]
    return " and ".join([own, *others])


def _merged_by(manifest: Manifest) -> str:
    method = manifest.merged_base_method
    return "" if method is None else f", merged by {method}"


def _late_token(manifest: Manifest) -> str:
    token = manifest.router.late_token
    return "" if token is None else f", late energies of the {token} token"


def _late_mlps(manifest: Manifest) -> str:
    share = manifest.router.late_mlp_share
    return "" if share == 1 else f" with MLPs of {share:g} of the tokens behind its first third"


def _input(manifest: Manifest) -> str:
    embedding, preprocessing = manifest.backbone.embedding, manifest.preprocessing
    if isinstance(embedding, WordEmbedding) and isinstance(preprocessing, TextPreprocessing):
        end = "" if preprocessing.cut_end == RIGHT else ", the last ones"
        return f"texts of {embedding.vocabulary:,} words, at most {preprocessing.max_tokens:,} tokens{end}"
    assert isinstance(embedding, PatchEmbedding)  # the preprocessing of a manifest fits
    return f"{embedding.image_size} px, patch {embedding.patch_size}"


def _calibration(manifest: Manifest, count: int) -> str:
    fits = manifest.calibrated_tasks([task.name for task in manifest.tasks]) is not None
    state = "" if fits else ", of other tasks or revisions: not used until the store is calibrated again"
    noun = "texts" if manifest.backbone.reads_text else "images"
    return f"calibrated on {count:,} {noun}{state}"


def _task_table(store: DescribedStore, tasks: Iterable[TaskEntry], sizes: dict[str, int]) -> Table:
    measured = ("distance", "energy kept", "early exit", "accuracy alone")
    columns = ("task", "revision", "classes", "head", "rank", "size", *measured, "earlier")
    table = Table(*(Column(column, no_wrap=True) for column in columns))
    for task in tasks:
        accuracy = "?" if task.individual_accuracy is None else f"{task.individual_accuracy:.4f}"
        size = decimal(sum(sizes[path] for path in task.files))
        earlier = len(store.manifest.history.get(task.name, ()))
        counts = (str(len(task.labels)), _head(task), _rank(task), size)
        table.add_row(
            task.name,
            task.revision,
            *counts,
            _distance(task),
            _energy_kept(task),
            _exit_price(task),
            accuracy,
            str(earlier),
        )
    return table


def _head(task: TaskEntry) -> str:
    if task.head.is_multi_label:
        return f"{task.head.kind}, multi-label"
    return f"{task.head.kind}, each token" if task.head.each_token else task.head.kind


def _rank(task: TaskEntry) -> str:
    return str(task.rank) if task.ranks is None else f"{min(task.ranks.values())} to {task.rank}"


def _distance(task: TaskEntry) -> str:
    return "-" if task.distance is None else f"{task.distance:.4f}"


def _energy_kept(task: TaskEntry) -> str:
    return "-" if task.energy_kept is None else f"{task.energy_kept:.1%}"


def _exit_price(task: TaskEntry) -> str:
    return "-" if task.exit_price is None else f"{task.exit_price:.4f}"
