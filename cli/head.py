"""mass-serve head: a classification head made of class names, by the text tower of a CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.arguments import JsonOption
from mass_serve.cli.failing import fail
from mass_serve.cli.progress_bars import progress_bars
from mass_serve.model_store.errors import StoreError


def head(
    pretrained: Annotated[
        str,
        typer.Option(
            help="whole CLIP, with its text tower: a path, hf:org/model[@revision] or a URL", metavar="MODEL"
        ),
    ],
    classnames: Annotated[
        str,
        typer.Option(
            help="one a line, a JSON list, or those of a task of the benchmark", metavar="FILE|TASK"
        ),
    ],
    templates: Annotated[
        str,
        typer.Option(
            help="prompts with {} for the class name: one a line, a JSON list, those of a task of the "
            "benchmark, or clip-imagenet, the 80 for photographs of anything",
            metavar="FILE|TASK",
        ),
    ],
    out: Annotated[Path, typer.Option(help="new head, a safetensors file", metavar="FILE")],
    labels: Annotated[
        Path | None,
        typer.Option(help="new list of labels (default: labels.json beside --out)", metavar="FILE"),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="folder with tokenizer.json, or vocab.json and merges.txt (default: that of --pretrained)",
            metavar="DIR",
        ),
    ] = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="read .pt and .bin files")] = False,
    as_json: JsonOption = False,
) -> None:
    """Makes a classification head of class names: the embeddings of prompts, by the text tower of a CLIP.

    This is the zero-shot head that CLIPs are fine-tuned with. Its labels are the class names.
    """
    from mass_serve.model_store.format.heads import LABELS_FILE, LOGIT_SCALE
    from mass_serve.model_store.sources import resolve
    from mass_serve.model_store.words import head_from_words, read_class_names, read_templates
    from mass_serve.model_store.words.write_head import refuse_taken, write_head

    labels_file = labels or out.with_name(LABELS_FILE)
    try:
        names, prompts = read_class_names(classnames), read_templates(templates)
        refuse_taken(out, labels_file, names)
        with progress_bars() as progress:
            base = resolve(pretrained, allow_pickle, progress).path
            made = head_from_words(
                base, names, prompts, tokenizer=tokenizer, allow_pickle=allow_pickle, progress=progress
            )
        write_head(made, names, out, labels_file)
    except StoreError as error:
        fail(error)
    classes, width = made.shape
    scale = made.tensors[LOGIT_SCALE].item()
    if as_json:
        sizes = {"classes": classes, "width": width, "templates": len(prompts), "logit_scale": scale}
        typer.echo(json.dumps({"head": str(out), "labels": str(labels_file), **sizes}))
    else:
        typer.echo(
            f"{out}: classes {classes}, width {width}, templates {len(prompts)}, "
            f"logit scale {scale:.4g}; labels in {labels_file}"
        )


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(head)
