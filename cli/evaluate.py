"""mass-serve eval: how close a store comes to its individual models."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mass_serve.cli.arguments import StoreArgument
from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.engine.named_tasks import named_tasks
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.evaluation.slow_baselines import SLOW
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.file_names import PRETRAINED_FILE
from mass_serve.model_store.format.groups import groups_among
from mass_serve.model_store.format.manifest import Manifest
from mass_serve.router.modes import MODE_NAMES, PAPER, ModeName, mode_named
from mass_serve.server.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from mass_serve.engine import Engine
    from mass_serve.evaluation import Report
    from mass_serve.evaluation.changes import FinetunedModels
    from mass_serve.evaluation.evaluate import StoreBytes
    from mass_serve.evaluation.variants import Variants


def evaluate(
    store: StoreArgument,
    data: Annotated[
        Path,
        typer.Argument(
            help="DATA/<task>/<class>/*.png|jpg|webp, or texts: DATA/<task>.jsonl|csv|tsv", metavar="DATA"
        ),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the figures here; - for standard output")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="write pictures of the figures here")] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="measure the store with these tasks alone, or those of @GROUP; may be repeated"),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="search for the task so; repeat to compare (default: as the store says)"),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="measure this baseline; repeat for several (default: all but the slow ones,"
            f" {', '.join(SLOW)}; some need --finetuned)",
            metavar="BASELINE",
        ),
    ] = None,
    finetuned: Annotated[
        list[str] | None,
        typer.Option(
            help="a task's fine-tuned checkpoint, for the baselines that need it; repeat for every task",
            metavar="NAME=MODEL",
        ),
    ] = None,
    ood: Annotated[
        Path | None,
        typer.Option(
            help="images or texts that no task covers, OOD/<domain>/*.png: can they be told?", metavar="OOD"
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="arithmetic of the encoder, as of `serve`; measure two to compare them", metavar="DTYPE"
        ),
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="accuracy against tasks added one by one, and against rank")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(help="keep every answer in this file; the same command goes on from it", metavar="FILE"),
    ] = None,
) -> None:
    """Measures accuracy with the task unknown, and the baselines with the task known, on labelled data.

    An image or text counts as right when its task and its label both are. Settings other than the store
    come from the environment (MASS_DEVICE, MASS_DTYPE, MASS_EXECUTION, ...).
    """
    from mass_serve.evaluation import EvaluationData, Options, files_of
    from mass_serve.evaluation.baselines import USUAL
    from mass_serve.evaluation.data import of_whole_inputs
    from mass_serve.evaluation.evaluate import evaluate as run_evaluation
    from mass_serve.evaluation.methods import Routed

    modes = [_mode(name) for name in mode or []]
    variants, manifest = _load(store, modes, task or [], dtype)
    engine = variants.engine()
    labels = of_whole_inputs({one.name: one for one in manifest.tasks})
    options = Options(
        changes=_finetuned_models(engine, finetuned or []),
        baselines=[_baseline(name) for name in baseline] if baseline else USUAL,
        methods=[Routed(name, variants.engine(name)) for name in modes],
        unfamiliar=ood,
        curves=variants if curves else None,
        store_bytes=_store_bytes(store, engine.tasks),
        settings={
            "first_pass_dtype": variants.first_pass_dtype,
            "execution": variants.execution.value,
            "mode": variants.loaded.mode,
        },
    )
    try:
        with progress_bars() as progress:
            report = run_evaluation(
                engine,
                EvaluationData(data, labels, files_of(engine), resume, only=engine.tasks),
                progress,
                options,
            )
        _write(report, files_of(engine).noun, json_file, plots)
    except EvaluationDataError as error:
        fail(error)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}", EXIT_FAILED)


def _mode(name: str) -> ModeName:
    try:
        return mode_named(name)
    except ValueError:
        fail(f"--mode {name!r} must be one of {', '.join(MODE_NAMES)}")


def _baseline(name: str) -> str:
    from mass_serve.evaluation.baselines import NAMES as BASELINE_NAMES

    if name not in BASELINE_NAMES:
        fail(f"--baseline {name!r} must be one of {', '.join(BASELINE_NAMES)}")
    return name


def _load(
    store: str, modes: Sequence[ModeName], names: Sequence[str], dtype: str | None
) -> tuple[Variants, Manifest]:
    """Loads the named tasks in the first of the modes, with weights for all of them; without names all."""
    from mass_serve.engine.loading import load_store
    from mass_serve.evaluation.variants import Variants
    from mass_serve.model_store.store import Store
    from mass_serve.server.startup import store_source

    try:
        source = store_source(load_settings({"store": store, "dtype": dtype}))
        # The paper's first pass reads less than the others'.
        most = next((mode for mode in modes if mode != PAPER), PAPER if modes else source.options.mode)
        options = source.options
        opened = Store.open(source.url, options.trusted_keys)
        manifest = opened.manifest
        _leave_out(manifest)
        measured = _measured(manifest, names)
        loaded = load_store(
            source.url,
            options.torch_device,
            options.torch_dtype,
            most,
            [task.name for task in manifest.tasks if task.name not in measured],
            trusted_keys=options.trusted_keys,
        )
        merged_base = opened.load_merged_base() if manifest.merged_base_method and PAPER in modes else None
    except (SettingsError, StoreError, ValueError) as error:
        fail(error)
    variants = Variants(
        loaded, options.execution, options.set_cache_bytes, merged_base, options.first_pass_dtype
    )
    return variants, manifest


def _measured(manifest: Manifest, names: Sequence[str]) -> Collection[str]:
    """The tasks that are measured, all that are routed or those named. Raises UnknownTaskError."""
    routed = [task.name for task in manifest.routed_tasks]
    return named_tasks(names, routed, groups_among(manifest.groups, routed)) if names else routed


def _leave_out(manifest: Manifest) -> None:
    """Says on standard error which tasks are not measured; fails where that is all of them."""
    names = ", ".join(manifest.token_tasks)
    if not manifest.routed_tasks:
        fail(
            f"all tasks of the store classify tokens ({names}), and what is measured is the class of an input"
        )
    if names:
        typer.echo(f"left out, as they classify tokens and not whole texts: {names}", err=True)


def _finetuned_models(engine: Engine, given: Sequence[str]) -> FinetunedModels | None:
    """Returns the checkpoints of all tasks, if any is given."""
    from mass_serve.evaluation.changes import FinetunedModels
    from mass_serve.model_store.sources import resolve

    if not given:
        return None
    names = {}
    for text in given:
        task, _, name = text.partition("=")
        if not (task and name):
            fail(f"--finetuned {text!r} must have the form NAME=MODEL")
        names[task] = name
    if unknown := names.keys() - engine.tasks.keys():
        fail(f"--finetuned {', '.join(sorted(unknown))}: the store has no such task")
    if missing := engine.tasks.keys() - names.keys():
        fail(
            f"--finetuned must name every task of the store or none; {', '.join(sorted(missing))} is missing"
        )
    try:
        with progress_bars() as progress:
            paths = {task: resolve(name, progress=progress).path for task, name in names.items()}
        return FinetunedModels(engine.bank, paths)
    except StoreError as error:
        fail(error)


def _store_bytes(url: str, tasks: Collection[str]) -> StoreBytes:
    from mass_serve.evaluation.evaluate import StoreBytes
    from mass_serve.model_store.store import Store

    store = Store.open(url)
    return StoreBytes(
        encoder=store.files.size(PRETRAINED_FILE),
        experts=sum(store.files.size(file) for name in tasks if (file := store.task(name).changes_file)),
    )


def _write(report: Report, noun: str, json_file: Path | None, plots: Path | None) -> None:
    from mass_serve.cli.evaluation_table import print_report
    from mass_serve.evaluation.plots import write_plots

    content = json.dumps(report, indent=2)
    if json_file == Path("-"):
        typer.echo(content)
    else:
        print_report(report, noun)
        if json_file is not None:
            json_file.write_text(content + "\n", encoding="utf-8")
    if plots is not None:
        try:
            written = write_plots(report, plots)
        except ImportError:
            fail("--plots needs matplotlib: pip install 'mass-serve[plots]'")
        typer.echo("wrote " + ", ".join(map(str, written)), err=True)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("eval")(evaluate)
