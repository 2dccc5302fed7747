"""Class names and prompt templates: what they must be, and how the one is put into the other."""

from __future__ import annotations

from collections.abc import Sequence

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.heads import check_texts

PLACEHOLDERS = ("{}", "{c}")


def fill_in(templates: Sequence[str], classname: str) -> list[str]:
    """Returns the prompts of one class; of a template nothing but its placeholder is replaced."""
    return [template.replace(_placeholder(template), classname) for template in templates]


def check_class_names(classnames: Sequence[str], source: object) -> None:
    """Raises CheckpointError, naming the source, unless these are the labels of a head."""
    if not classnames:
        raise CheckpointError(f"{source} holds no class name, and a head needs one or more")
    if not all(name.strip() for name in classnames):
        raise CheckpointError(f"{source} holds an empty class name: remove it, or say what the class is")
    check_texts(classnames, source, "class name")


def check_templates(templates: Sequence[str], source: object) -> None:
    """Raises CheckpointError, naming the source, unless each template has one place for a class name."""
    if not templates:
        raise CheckpointError(f"{source} holds no template, and a head needs one or more")
    check_texts(templates, source, "template")
    for template in templates:
        found = sum(template.count(placeholder) for placeholder in PLACEHOLDERS)
        if found != 1:
            raise CheckpointError(
                f"{source} holds the template {template!r}, which has {found} places for a class name:"
                f" it must have one, {' or '.join(PLACEHOLDERS)}, as in 'a photo of a {{}}.'"
            )


def _placeholder(template: str) -> str:
    return next(placeholder for placeholder in PLACEHOLDERS if placeholder in template)
