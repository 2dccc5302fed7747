"""The suites of real encoders, of the demos' models: DINOv2 with eight tasks, MiniLM with eight.

Two tasks of `real_text` label the same texts. What its encoder does not know are texts of four other
sources; what that of `real_vision` does not know is drawn or photographed, or the silhouettes of animals.
"""

from __future__ import annotations

from pathlib import Path

from examples.from_packages.training import Report
from examples.real_demo import training as pictures
from examples.real_demo.sources.silhouettes import silhouettes
from examples.suites.unseen import DOMAINS, PICTURES, write_unseen
from examples.text_demo import training as texts
from examples.text_demo.finetune import Plan
from examples.text_demo.tasks import SAME_TEXTS, TASKS


def make_real_vision(out: Path, report: Report) -> Path:
    """The store of the real demo's tasks."""
    store = pictures.make_store(pictures.make_models(out, report), out, report)
    write_unseen(out / "ood", (domain for domain in DOMAINS if domain != "lao"))  # needs no fonts
    write_silhouettes(out / "ood" / "silhouettes", out / "raw")
    return store


def write_silhouettes(folder: Path, raw: Path) -> None:
    """PICTURES of the silhouettes, of every animal as many, as folder/<number>.png."""
    folder.mkdir(parents=True, exist_ok=True)
    found = list(silhouettes(raw))
    for number, picture in enumerate(found[:: len(found) // PICTURES][:PICTURES]):
        picture.save(folder / f"{number:03}.png")


def make_real_text(out: Path, report: Report) -> Path:
    """The store of the text demo's tasks and of one whose texts are another's."""
    texts.unfamiliar_texts(out, out / "ood", report)
    return texts.make_store(out, out, (*TASKS, SAME_TEXTS), Plan(), report)
