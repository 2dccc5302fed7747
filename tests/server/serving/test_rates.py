"""A key with a rate is answered so much a second, whatever the size of its requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mass_serve.server.errors import RateLimitError
from mass_serve.server.serving import rates
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.rates import Rates
from tests.pictures import picture
from tests.server_processes import RunningServer, StartServer

TEN = Caller("key:ten", "ten", rate=10.0)
SLOW = Caller("key:slow", "slow", rate=0.5)
FREE = Caller("key:free", "free")


@dataclass
class Till:
    """Rates with a clock that stands still."""

    now: float = 50.0
    rates: Rates = field(init=False)

    def __post_init__(self) -> None:
        self.rates = Rates(lambda: self.now)

    def retry_after(self, caller: Caller) -> int | None:
        """After how many seconds a refused caller may come back; None where it is not refused."""
        try:
            self.rates.check(caller)
        except RateLimitError as error:
            return error.retry_after_seconds
        return None


@pytest.fixture
def till() -> Till:
    return Till()


def answered_within(till: Till, caller: Caller, seconds: float, step: float = 0.05) -> int:
    """How many single answers somebody gets who asks again and again."""
    answered, end = 0, till.now + seconds
    while till.now < end:
        try:
            till.rates.take(caller, 1)
            answered += 1
        except RateLimitError:
            till.now += step
    return answered


def test_whoever_asks_all_the_time_gets_the_rate(till: Till) -> None:
    first = answered_within(till, TEN, 1.0)
    assert answered_within(till, TEN, 100.0) == pytest.approx(1000, rel=0.01)
    assert 10 <= first <= 2 * 10 + 1, "an idle caller has one second's worth at once"


def test_a_large_request_is_answered_and_paid_for_afterwards(till: Till) -> None:
    till.rates.take(TEN, 64)
    assert till.retry_after(TEN) == 6
    till.now += 5.3
    assert till.retry_after(TEN) == 1
    till.now += 0.2
    assert till.retry_after(TEN) is None


def test_a_rate_below_one_a_second(till: Till) -> None:
    till.rates.take(SLOW, 1)
    assert till.retry_after(SLOW) == 1
    till.now += 1.0
    assert till.retry_after(SLOW) is None


def test_nobody_pays_for_others_and_keys_without_a_rate_pay_nothing(till: Till) -> None:
    till.rates.take(TEN, 1000)
    till.rates.take(FREE, 1000)
    assert (till.retry_after(TEN), till.retry_after(SLOW), till.retry_after(FREE)) == (99, None, None)
    with pytest.raises(RateLimitError, match="10 images or texts a second"):
        till.rates.take(TEN, 1)


def test_callers_that_owe_nothing_are_forgotten(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MANY_CALLERS", 3)
    for number in range(20):
        till.rates.take(Caller(f"key:{number}", str(number), rate=1.0), 1)
        till.now += 1.5
    till.rates.take(TEN, 30)
    assert till.retry_after(TEN) == 2
    assert len(till.rates._paid_at) <= 4


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> RunningServer:
    keys = tmp_path / "keys"
    keys.write_text("slow-key name=slow rate=0.01\nfree-key name=free\n")
    keys.chmod(0o600)
    started = start_server(inference_keys_file=keys)
    started.wait_until_ready()
    return started


def test_a_server_refuses_what_is_more_than_the_rate_and_says_when_to_come_back(
    server: RunningServer,
) -> None:
    slow, free = {"X-API-Key": "slow-key"}, {"X-API-Key": "free-key"}
    codes = [server.client.post("/v1/classify", content=picture(n), headers=slow) for n in (1, 2)]
    assert [answer.status_code for answer in codes] == [200, 429]
    assert 90 <= int(codes[1].headers["Retry-After"]) <= 99
    assert "0.01 images or texts a second" in codes[1].json()["error"]
    for path in ("/", "/v2/models/auto/infer", "/predict"):
        assert server.client.post(path, content=picture(1), headers=slow).status_code == 429, path
    assert server.client.get("/v1/tasks", headers=slow).status_code == 200, "only answers count"
    assert server.client.post("/v1/classify", content=picture(1), headers=free).status_code == 200
    assert server.metric('mass_key_rate_limited_total{key="slow"}') == 4
    assert server.metric('mass_rejected_total{reason="rate"}') == 4
