"""A change that is activated where few inputs flip: made as the next revision, compared, then promoted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.flips import Flips, Limit, both_engines, found_flips
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.next_store import find_next, next_url
from mass_serve.server.settings import SettingsError


@dataclass(frozen=True)
class Judge:
    """Inputs that a change is judged by, and how many of them may turn from right to wrong."""

    data: Path
    unlabelled: bool
    limit: Limit

    def place_of_change(self, url: str) -> str:
        """Returns where the change is to be made, so that nobody sees it yet.

        Ends the command for a folder that is missing, and for a next revision that would be lost: both are
        known before long work.
        """
        following = next_url(url)
        if not self.data.is_dir():
            fail(f"--eval-data {self.data} is no folder")
        if url == following:
            fail(f"--eval-data judges what is to become the store, and {url} stays beside it: use `compare`")
        if find_next(url) is not None:
            fail(f"there is {following} already: `mass-serve next promote` or `discard` it first")
        return following

    def flips(self, url: str) -> Flips:
        """Compares the store with its next revision; ends the command where that cannot be done."""
        try:
            return found_flips(both_engines(url, next_url(url)), self.data, self.unlabelled)
        except (SettingsError, StoreError, EvaluationDataError, ValueError, FloatingPointError) as error:
            not_activated(url, error)


def not_activated(url: str, why: object) -> NoReturn:
    """Ends the command with 1; what was made stays beside the store."""
    fail(
        f"{why}: the new revision is not activated; it is {next_url(url)} until `mass-serve next promote`"
        " or `discard`",
        EXIT_FAILED,
    )
