"""The tasks: where their texts come from, and which of them are served together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from examples.text_demo.sources.debian import interfaces, packages
from examples.text_demo.sources.fortunes import fortunes
from examples.text_demo.sources.glosses import nouns
from examples.text_demo.sources.mail import mail
from examples.text_demo.sources.manuals import languages, sections
from examples.text_demo.sources.names import emoji, names
from examples.text_demo.sources.news import news
from examples.text_demo.sources.programs import code
from examples.text_demo.sources.terms import terms
from examples.text_demo.texts import Text

BASELINES = ("tsv_c",)


@dataclass(frozen=True)
class Task:
    """A task: all weights are fine-tuned for it."""

    name: str
    texts: Callable[[Path], Iterable[Text]]


# Texts that differ in kind: the store whose figures are reported.
TASKS = (
    Task("news", news),
    Task("mail", mail),
    Task("glosses", nouns),
    Task("terms", terms),
    Task("languages", languages),
    Task("code", code),
    Task("packages", packages),
)
# Another set of labels for the texts of a task: no router can tell which of the two is meant.
TWICE_LABELLED = "packages"
SAME_TEXTS = Task("interfaces", interfaces)
# Other texts, on which the defaults of routing were chosen; no task of the store knows them.
CHOSEN_ON = (
    Task("sections", sections),
    Task("fortunes", fortunes),
    Task("emoji", emoji),
    Task("names", names),
)
