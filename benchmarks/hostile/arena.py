"""One attack on one server, watched: how /livez, good neighbours and memory fared, and what was left."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from benchmarks.hostile.attacks import MIB, Attack, Attacker
from benchmarks.hostile.watcher import NEIGHBOURS_SECONDS, PROBES_SECONDS, Journal, Plan, Sample
from benchmarks.hostile.wire import UNANSWERED
from benchmarks.service.figures import percentile
from benchmarks.service.processes import Server

PICTURE = Path(__file__).parents[2] / "examples" / "evaluation" / "digits" / "three" / "02.png"

# Seconds of watching before an attack, and at least with it: 200 probes, of which 2 may be late.
CALM_SECONDS, LEAST_SECONDS = 1.0, 5.0
# Of the requests that were due meanwhile, so many must have been sent: a watcher that slept proves nothing.
LEAST_SHARE = 0.9
# An attack that goes on for longer is broken off, which is long enough to see it starve others.
MOST_SECONDS = 25.0
PATIENCE = 10.0


@dataclass(frozen=True)
class Report:
    """Holds what an attack did."""

    attack: Attack
    bytes_sent: int
    answers: Counter[int]  # of the attacker
    seconds: float  # of watching it
    probes: list[Sample]
    neighbours: list[Sample]
    mates: list[Sample]
    lag: float  # of the watcher, p99
    calm_probe_p99: float  # before the attack
    calm_memory: int  # before the first attack on this server
    peak_memory: int
    after: str  # "right", or what was wrong with the answer to a good image afterwards
    server_errors: float  # requests that the server counted as 5xx
    log: str

    @property
    def probe_p99(self) -> float:
        """Seconds."""
        return percentile(sorted(sample.seconds for sample in self.probes), 99)

    def complaints(self) -> list[str]:
        """Says what a fair server would not have done; empty where it held."""
        return [*self.lateness(), *self.faults()]

    def lateness(self) -> list[str]:
        """Says who waited too long, which another machine's load can be the reason of, too."""
        longest = self.attack.longest_answer
        found = [*_late("another address", self.neighbours, longest)]
        if unanswered := self.answers[UNANSWERED]:
            found.append(f"the attacker waited for {unanswered} answers when it was broken off")
        if not self.attack.own_address_suffers:
            found += _late("the same address", self.mates, longest)
        if self.probe_p99 > self.attack.longest_probe:
            worst = max(sample.seconds for sample in self.probes)
            calm = f"{self.calm_probe_p99:.3f} before; lag of the machine {self.lag:.3f}"
            found.append(f"/livez took {self.probe_p99:.3f} s (p99; worst {worst:.3f}; {calm})")
        return found

    def faults(self) -> list[str]:
        """Says what no load of the machine is the reason of."""
        found = [*self._too_few(), *self._wrong_probes(), *_refused("another address", self.neighbours)]
        if not self.attack.own_address_suffers:
            found += _refused("the same address", self.mates)
        found += self._surprising_answers()
        growth = self.peak_memory - self.calm_memory
        if growth > self.attack.growth:
            found.append(f"memory grew by {growth // MIB} MiB, {self.attack.growth // MIB} were allowed")
        if self.after != "right":
            found.append(f"afterwards: {self.after}")
        if self.server_errors:
            found.append(f"{self.server_errors:g} requests ended in a 5xx")
        if "Traceback" in self.log:
            found.append(f"the log has a traceback: {self.log[self.log.index('Traceback') :][:600]}")
        return found

    def _wrong_probes(self) -> Iterator[str]:
        wrong = Counter(sample.status for sample in self.probes if sample.status not in (200, UNANSWERED))
        if wrong:
            yield f"/livez answered {dict(wrong)}"

    def _too_few(self) -> Iterator[str]:
        """A watcher that was late at its own clock makes up for it, so that this is no matter of load."""
        for what, samples, every in (
            ("probes", self.probes, PROBES_SECONDS),
            ("neighbours at another address", self.neighbours, NEIGHBOURS_SECONDS),
            ("neighbours at the same address", self.mates, NEIGHBOURS_SECONDS),
        ):
            due = self.seconds / every
            if len(samples) < LEAST_SHARE * due:
                yield f"only {len(samples)} of {due:.0f} {what} were sent"

    def _surprising_answers(self) -> Iterator[str]:
        fair = self.attack.answers | {UNANSWERED}  # that one is late
        surprising = {status: count for status, count in self.answers.items() if status not in fair}
        if surprising:
            yield f"the attacker got {surprising}"


def _late(whose: str, samples: list[Sample], longest: float) -> Iterator[str]:
    late = [round(sample.seconds, 2) for sample in samples if sample.seconds > longest]
    if late:
        yield f"{len(late)} of {len(samples)} neighbours at {whose} waited up to {max(late)} s"


def _refused(whose: str, samples: list[Sample]) -> Iterator[str]:
    """One that was still on its way when the watching ended is late, and counted there."""
    refused = Counter(sample.status for sample in samples if sample.status not in (200, UNANSWERED))
    if refused:
        yield f"neighbours at {whose} got {dict(refused)}"


def fight(
    server: Server, attack: Attack, most_seconds: float = MOST_SECONDS, calm_memory: int | None = None
) -> Report:
    """Attacks a server that is ready and calm, and reports.

    `calm_memory` is what it had before the first of several attacks: what each leaves is not forgiven.
    """
    server.client.post("/v1/classify", content=PICTURE.read_bytes()).raise_for_status()
    errors_before, log_before = server_errors(server.client), len(server.log.read_bytes())
    attacker = Attacker(server.port)
    with _watching(server) as watched:
        time.sleep(CALM_SECONDS)
        began = time.monotonic()
        asyncio.run(_attack(attack, attacker, most_seconds))
        time.sleep(max(1.0, LEAST_SECONDS - (time.monotonic() - began)))
        seconds = time.monotonic() - began
        journal = watched()
    during = [resident for when, resident in journal.memory if when >= began]
    return Report(
        attack=attack,
        bytes_sent=attacker.sent,
        answers=attacker.statuses,
        seconds=seconds,
        probes=_since(began, journal.probes),
        neighbours=_since(began, journal.neighbours),
        mates=_since(began, journal.mates),
        lag=percentile(sorted(lag for when, lag in journal.lags if when >= began), 99),
        calm_probe_p99=percentile(
            sorted(probe.seconds for probe in journal.probes if probe.sent < began), 99
        ),
        calm_memory=calm_memory or max(resident for when, resident in journal.memory if when < began),
        peak_memory=max(during),
        after=_answer_to_a_good_image(server),
        server_errors=_counted(server) - errors_before,
        log=server.log.read_bytes()[log_before:].decode(errors="replace"),
    )


async def _attack(attack: Attack, attacker: Attacker, most_seconds: float) -> None:
    try:
        async with asyncio.timeout(most_seconds):
            await attack.perform(attacker)
    except TimeoutError:
        attacker.statuses[UNANSWERED] += 1


def _since(began: float, samples: list[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.sent >= began]


@contextmanager
def _watching(server: Server) -> Iterator[Callable[[], Journal]]:
    plan = Plan(server.port, server.process.pid, str(PICTURE))
    command = [sys.executable, "-m", "benchmarks.hostile.watcher", json.dumps(asdict(plan))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"watching\n", "the watcher did not start"
        try:
            yield lambda: Journal.from_json(process.communicate()[0])
        finally:
            process.kill()


def _answer_to_a_good_image(server: Server) -> str:
    try:
        response = server.client.post("/v1/classify", content=PICTURE.read_bytes(), timeout=PATIENCE)
        best = response.json()["results"][0]
    except httpx.TimeoutException:
        return f"no answer within {PATIENCE:g} s"
    except httpx.TransportError as error:
        return f"no server ({type(error).__name__})"
    except (KeyError, ValueError):
        return f"{response.status_code} {response.text[:200]}"
    right = (best["task"], best["label"]) == ("digits", "three")
    return "right" if right else f"{best['label']} of {best['task']}"


def server_errors(client: httpx.Client) -> float:
    """Requests that were counted as answered with 5xx, but for 505: that version of HTTP was the caller's."""
    samples = re.findall(
        r'^mass_requests_total\{code="50[0-4]".*\} (\S+)$', client.get("/metrics").text, re.MULTILINE
    )
    return sum(map(float, samples))


def _counted(server: Server) -> float:
    try:
        return server_errors(server.client)
    except httpx.HTTPError:
        return float("nan")
