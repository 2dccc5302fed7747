"""Where a caller is: where its connection comes from, whatever its headers say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.server_processes import running

ASKED = 12  # at a time; of one address four may wait for the answer to a wrong key


def test_wrong_keys_are_counted_by_the_connection_and_not_by_headers(tmp_path: Path) -> None:
    """Whoever may name an address for each guess is never slowed down."""
    keys = tmp_path / "keys"
    keys.write_text("a-key-that-nobody-guesses-1234567890\n")
    keys.chmod(0o600)
    with running(0.0, {"inference_keys_file": keys}) as server, ThreadPoolExecutor(ASKED) as pool:
        server.wait_until_ready()

        def guess(number: int) -> int:
            headers = {"Authorization": f"Bearer guess-{number}", "X-Forwarded-For": f"192.0.2.{number}"}
            url = f"http://127.0.0.1:{server.port}/v1/tasks"
            return httpx.get(url, headers=headers, timeout=60).status_code

        statuses = list(pool.map(guess, range(ASKED)))
    assert set(statuses) == {401, 429}
