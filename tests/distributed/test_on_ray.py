"""Replicas and workers on a real Ray cluster of one machine; `session.py` says what is done there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mass_serve.server.startup import demo_store
from tests.distributed.session import REMOVED

pytestmark = [pytest.mark.optional("ray"), pytest.mark.slow]
# Its own network, of which nothing is reached from outside, and its own processes, which end with the first.
OWN = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
SESSION_SECONDS = 1500


@dataclass(frozen=True)
class Session:
    """What came of a session, and where its files are."""

    told: dict[str, Any]
    folder: Path

    def part(self, job: str) -> bytes:
        """The results of a job."""
        (part,) = (self.folder / job).glob("part-*")
        return part.read_bytes()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    if subprocess.run([*OWN, "true"], capture_output=True, check=False).returncode:
        pytest.skip("Ray listens on all interfaces, and this user may make no network of its own (unshare)")
    folder = tmp_path_factory.mktemp("session")
    run = f"ip link set lo up && exec {sys.executable} -m tests.distributed.session {folder}"
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # a socket's path has room for 107 bytes
        done = subprocess.run(
            [*OWN, "bash", "-c", run],
            env={**os.environ, "RAY_TMPDIR": short},
            timeout=SESSION_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-8000:]
    return Session(json.loads((folder / "told.json").read_text()), folder)


def results(answers: list[dict[str, Any]]) -> set[str]:
    return {json.dumps(answer["results"], sort_keys=True) for answer in answers}


def test_two_replicas_answer_with_the_same_bits(session: Session) -> None:
    served = session.told["serve"]
    assert len(served["asked"]) == 2
    assert min(served["asked"].values()) > 0, "both were asked"
    assert len(results(served["answers"])) == 1


def test_metrics_count_the_requests_of_all_replicas(session: Session) -> None:
    served = session.told["serve"]
    assert sum(served["asked"].values()) == len(served["answers"])


def test_a_response_has_one_request_id(session: Session) -> None:
    assert session.told["serve"]["request_ids"] == ["one"]


def test_replicas_have_the_encoder_in_memory_that_they_share(session: Session) -> None:
    encoder = (Path(demo_store()) / "pretrained.safetensors").stat().st_size
    assert all(shared >= encoder for shared in session.told["serve"]["shared_bytes"])


def test_a_new_revision_reaches_all_replicas_and_refuses_nobody(session: Session) -> None:
    served = session.told["serve"]
    assert served["swap"]["failed"] == []
    before = {answer["store_revision"] for answer in served["answers"]}
    after = {answer["store_revision"] for answer in served["swap"]["answers"]}
    assert len(after) == 1
    assert after != before
    manifest = json.loads((session.folder / "store" / "manifest.json").read_text())
    assert after == {manifest["store_revision"]}
    assert REMOVED not in [task["name"] for task in manifest["tasks"]]


def test_a_replica_that_is_killed_loses_no_request(session: Session) -> None:
    killed = session.told["serve"]["kill"]
    assert killed["failed"] == []
    assert killed["answered"] > 0


def test_sigterm_takes_the_replicas_away(session: Session) -> None:
    assert session.told["serve"]["exit_code"] == 0, "and the session saw that none is left"


def test_a_job_has_the_same_results_though_a_worker_was_killed(session: Session) -> None:
    told = session.told["batch"]
    assert told["was_running"]
    assert told["exit_code"] == 0
    assert told["told"]["failed"] == 0
    assert session.part("lost_worker") == session.part("here")


def test_a_job_goes_on_where_its_command_was_killed(session: Session) -> None:
    assert session.told["batch"]["gone_on"] == 0
    assert session.part("workers") == session.part("here")
