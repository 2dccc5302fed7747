"""The ledger: what is ahead of a request in the fair order, and who makes room for whom."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from mass_serve.engine import ServingEngine
from mass_serve.server.errors import QueueFullError
from mass_serve.server.serving.admission import ADMISSION_MARGIN, FIRST_SECONDS, Ledger
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.fair_queue import ORDINARY_PRIORITY, Turn
from mass_serve.server.serving.ticket import Ticket

ENGINE = cast(ServingEngine, object())
URGENT, LAZY = ORDINARY_PRIORITY - 1, ORDINARY_PRIORITY + 1
NOW = 1000.0
FOREVER = 1e9


@dataclass
class Desk:
    """A ledger whose clock stands still."""

    queue_images: int = 100
    decoders: int = 2
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.queue_images, self.decoders, lambda: NOW)

    def ask(
        self,
        caller: str,
        images: int = 1,
        *,
        seconds: float = FOREVER,
        priority: int = ORDINARY_PRIORITY,
        share: float = 1.0,
        decode: float = 0.0,
    ) -> Ticket:
        """An admitted request; those that left for it have failed as the batcher makes them."""
        turn = Turn(caller, priority, share)
        ticket = Ticket(ENGINE, images, NOW + seconds, turn, decode)
        for leaving in self.ledger.admit(ticket):
            leaving.fail(QueueFullError("pushed out"))
            self.ledger.forget(leaving)
        return ticket

    def seconds(self, caller: str, images: int = 1, **asked: float) -> float:
        """The time that is predicted for a request, to a hundredth: with a little less it is refused."""
        low, high = 0.0, 10_000.0
        while high - low > 0.001:
            middle = (low + high) / 2
            try:
                ticket = self.ask(caller, images, seconds=middle, **asked)  # type: ignore[arg-type]
            except QueueFullError:
                low = middle
            else:
                self.ledger.forget(ticket)
                high = middle
        return round(high / ADMISSION_MARGIN, 2)


@pytest.fixture
def desk() -> Desk:
    """Images take a second each on the device; decoding takes no time."""
    made = Desk()
    made.ledger.device_took(10, 10.0)
    return made


def test_with_nothing_ahead_a_request_is_tried(desk: Desk) -> None:
    desk.ledger.on_device = 50
    desk.ask("a", 64, seconds=0.001)


def test_before_any_batch_everything_is_tried() -> None:
    desk = Desk()
    desk.ask("a", 50)
    desk.ask("b", 50, seconds=0.001)


def test_the_first_small_batches_have_nobody_refused() -> None:
    """What a batch takes whatever is in it would make a hundred images seem to take a minute."""
    desk = Desk()
    for images in (1, 2, 4):
        desk.ledger.device_took(images, 0.5)
    desk.ask("a", 50)
    desk.ask("b", 50, seconds=1.0)
    desk.ledger.device_took(8, FIRST_SECONDS - 1.5)
    with pytest.raises(QueueFullError, match="images are ahead"):
        desk.ask("c", 50, seconds=1.0)


def test_the_margin_is_a_fifth() -> None:
    assert ADMISSION_MARGIN == 1.2


def test_the_callers_own_images_the_devices_and_the_request_itself_take_time(desk: Desk) -> None:
    desk.ask("a", 5)
    assert desk.seconds("a", 2) == 7.0
    desk.ledger.on_device = 3
    assert desk.seconds("a", 2) == 10.0


def test_an_answer_at_the_deadline_is_in_time(desk: Desk) -> None:
    desk.ask("a", 5)
    with pytest.raises(QueueFullError):
        desk.ask("a", 2, seconds=ADMISSION_MARGIN * 7.0 - 0.001)
    desk.ask("a", 2, seconds=ADMISSION_MARGIN * 7.0)


def test_the_refusal_says_how_many_are_ahead(desk: Desk) -> None:
    desk.ask("a", 5)
    with pytest.raises(QueueFullError, match=r"^5 images are ahead, too many"):
        desk.ask("a", seconds=1.0)
    assert desk.ledger.waiting == 5, "what is refused is not entered"


def test_sizes_that_are_guessed_count_as_they_turned_out_of_late(desk: Desk) -> None:
    """Texts are guessed to have a token for each character, and mostly have a quarter of that."""
    desk.ask("a", 4).submit(1, 4)
    for _ in range(500):
        desk.ledger.size_was(40, 10)
    assert desk.seconds("a", 8) == 4.0 + 2.0
    guessed = desk.ask("a", 8)
    assert desk.seconds("a", 8) == 4.0 + 2.0 + 2.0
    guessed.submit(2, 3)
    assert desk.seconds("a", 8) == 4.0 + 3.0 + 2.0
    assert desk.ledger.waiting == 7, "the queue's bound counts all that it may be"


def test_of_another_caller_only_as_much_is_ahead_as_is_taken_in_turns(desk: Desk) -> None:
    desk.ask("flood", 50)
    assert desk.seconds("a", 3) == 6.0
    desk.ask("b", 2)
    assert desk.seconds("a", 3) == 8.0, "b has only two"
    desk.ask("a", 10)
    assert desk.seconds("a", 3) == 13.0 + 13.0 + 2.0


def test_all_requests_of_another_caller_are_one_callers(desk: Desk) -> None:
    for _ in range(9):
        desk.ask("flood", 2)
    assert desk.seconds("a", 4) == 8.0


def test_callers_have_as_much_ahead_as_their_shares_give_them(desk: Desk) -> None:
    desk.ask("large", 50, share=2.0)
    assert desk.seconds("a", 3) == 9.0
    assert desk.seconds("a", 3, share=2.0) == 6.0
    assert desk.seconds("a", 4, share=4.0) == 6.0


def test_more_urgent_images_count_wholly_and_less_urgent_ones_not_at_all(desk: Desk) -> None:
    desk.ask("vip", 20, priority=URGENT)
    desk.ask("lazy", 20, priority=LAZY)
    desk.ask("a", 7, priority=LAZY)
    assert desk.seconds("a", 2) == 22.0
    assert desk.seconds("a", 2, priority=LAZY) == 20.0 + 7.0 + 9.0 + 2.0
    desk.ask("a", 1, priority=URGENT)
    assert desk.seconds("a", 2) == 23.0
    assert desk.seconds("vip", 1, priority=URGENT) == 22.0


def test_images_on_the_device_wait_no_more(desk: Desk) -> None:
    ticket = desk.ask("a", 5)
    ticket.waiting -= 3
    assert desk.ledger.waiting == 2
    assert desk.seconds("a") == 3.0


def test_decoding_is_shared_by_the_decoders_and_added(desk: Desk) -> None:
    desk.ask("a", decode=2.0)
    assert desk.seconds("a", decode=6.0) == (2 + 6) / 2 + 2.0
    desk.ask("flood", 10, decode=100.0)
    assert desk.seconds("a", decode=6.0) == (2 + 6 + 8) / 2 + 4.0, "decoding takes turns too"


def test_decoding_takes_as_much_longer_than_expected_as_it_did_of_late(desk: Desk) -> None:
    for _ in range(500):
        desk.ledger.decode_took(0.1, 0.3)
    desk.ask("a")
    assert desk.seconds("a", 10, decode=2.0) == 3.0 + 11.0


def test_one_slow_image_of_many_does_not_change_much(desk: Desk) -> None:
    for _ in range(500):
        desk.ledger.decode_took(0.1, 0.1)
    desk.ledger.decode_took(0.1, 1.0)
    desk.ask("a")
    # It counts as four times as slow, and its weight is a fiftieth.
    assert desk.seconds("a", decode=2.0) == pytest.approx(1.06 + 2.0, abs=0.01)


@pytest.mark.parametrize(
    ("seconds", "pace"), [(100.0, 4.0), (0.41, 4.0), (0.3, 3.0), (0.03, 0.3), (0.0, 0.25)]
)
def test_no_number_of_odd_images_makes_the_pace_odder_than_by_four(
    desk: Desk, seconds: float, pace: float
) -> None:
    for _ in range(500):
        desk.ledger.decode_took(0.1, seconds)
    desk.ask("a")
    assert desk.seconds("a", decode=20.0) == pytest.approx(pace * 10 + 2.0, abs=0.01)


def test_what_is_decoded_takes_no_more_time_of_the_decoders(desk: Desk) -> None:
    ticket = desk.ask("a", decode=1000.0)
    ticket.decode_cost = 0.0
    assert desk.seconds("a") == 2.0


def test_a_backlog_that_cannot_be_decoded_in_time_is_not_added_to(desk: Desk) -> None:
    """The flood's next request is refused, and its neighbour's answer is not late for it."""
    desk.ask("flood", 20, seconds=30.0, decode=40.0)
    with pytest.raises(QueueFullError):
        desk.ask("flood", 1, seconds=30.0, decode=10.0)
    desk.ask("neighbour", seconds=5.0, decode=0.1)


def test_the_paces_follow_the_recent_past(desk: Desk) -> None:
    for _ in range(50):
        desk.ledger.device_took(1, 0.5)
    desk.ask("a")
    assert desk.seconds("a") == 1.0


def batches(took: Callable[[int], float], first: tuple[int, float], count: int) -> list[int]:
    """The sizes of full batches of half a second, on a device that takes `took(n)` for n images."""
    ledger, sizes = Ledger(100), []
    ledger.device_took(*first)
    for _ in range(count):
        sizes.append(int(min(64, max(1, ledger.places_within(0.5)))))
        ledger.device_took(sizes[-1], took(sizes[-1]))
    return sizes


def test_after_one_slow_batch_the_next_grow_at_once() -> None:
    sizes = batches(lambda n: 0.02 + 0.001 * n, (1, 30.0), 8)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 64]


def test_batches_of_one_do_not_keep_themselves_small() -> None:
    """Where a batch takes long however small it is, one image alone is in time, and so are ten."""
    sizes = batches(lambda n: 0.4 + 0.01 * n, (1, 0.41), 40)
    assert sizes[:4] == [2, 3, 4, 5]
    assert min(sizes[10:]) >= 8
    assert max(sizes) <= 13


def test_where_each_image_takes_as_long_a_batch_takes_at_most_a_quarter_more_than_it_should() -> None:
    sizes = batches(lambda n: 0.05 * n, (1, 0.05), 40)
    assert min(sizes[1:]) >= 9
    assert max(sizes) <= 12


def test_a_batch_that_took_too_long_is_not_followed_by_a_larger_one() -> None:
    assert batches(lambda _: 0.51, (1, 0.51), 1) == [1]
    assert batches(lambda _: 0.5, (1, 0.5), 1) == [2]
    assert batches(lambda n: 0.25 * n, (8, 0.25), 1) == [16]
    assert batches(lambda n: 0.25 * n, (8, 0.26), 1) == [15], "what the pace allows is not given up"


def test_before_any_batch_its_size_has_no_bound() -> None:
    assert Ledger(10).places_within(0.5) == math.inf


def test_admission_is_all_or_nothing_and_one_caller_may_fill_the_queue(desk: Desk) -> None:
    desk.ask("a", 60)
    desk.ask("a", 40)
    with pytest.raises(QueueFullError, match=r"100 of 100 images"):
        desk.ask("a")
    assert len(desk.ledger.open) == 2


def test_places_are_given_back_once(desk: Desk) -> None:
    ticket = desk.ask("a", 100)
    desk.ledger.forget(ticket)
    desk.ledger.forget(ticket)
    assert (desk.ledger.waiting, ticket.waiting) == (0, 0)
    desk.ask("a", 100)


def gone(*tickets: Ticket) -> list[bool]:
    return [ticket.future.done() for ticket in tickets]


def test_the_newest_requests_of_who_holds_most_make_room(desk: Desk) -> None:
    flood = [desk.ask("flood", 20) for _ in range(4)]
    small = desk.ask("small", 20)
    desk.ask("newcomer", 10)
    assert gone(*flood) == [False, False, False, True]
    assert not small.future.done()
    assert desk.ledger.waiting == 90
    desk.ask("newcomer", 20)
    assert gone(*flood) == [False, False, True, True]


def test_as_many_leave_as_are_needed(desk: Desk) -> None:
    flood = [desk.ask("flood", 10) for _ in range(10)]
    desk.ask("newcomer", 25)
    assert gone(*flood) == [False] * 7 + [True] * 3


def test_nobody_leaves_while_there_is_room(desk: Desk) -> None:
    flood = desk.ask("flood", 99)
    desk.ask("newcomer", 1)
    assert not flood.future.done()
    assert desk.ledger.waiting == 100


def test_nobody_leaves_for_more_than_a_fair_share(desk: Desk) -> None:
    flood = [desk.ask("flood", 10) for _ in range(10)]
    with pytest.raises(QueueFullError):
        desk.ask("newcomer", 51)
    assert not any(gone(*flood))
    desk.ask("newcomer", 50)
    assert sum(gone(*flood)) == 5
    with pytest.raises(QueueFullError):
        desk.ask("newcomer")
    with pytest.raises(QueueFullError):
        desk.ask("flood")


def test_a_share_of_three_may_hold_three_quarters(desk: Desk) -> None:
    flood = [desk.ask("flood", 5) for _ in range(20)]
    desk.ask("large", 75, share=3.0)
    assert sum(gone(*flood)) == 15
    with pytest.raises(QueueFullError):
        desk.ask("large", share=3.0)


def test_a_fair_share_is_not_rounded_before_it_is_multiplied(desk: Desk) -> None:
    for _ in range(100):
        desk.ask("flood")
    desk.ask("large", 83, share=5.0)
    with pytest.raises(QueueFullError):
        desk.ask("large", share=5.0)


def test_who_holds_most_of_its_share_leaves_first(desk: Desk) -> None:
    large = [desk.ask("large", 10, share=4.0) for _ in range(6)]
    small = [desk.ask("small", 10) for _ in range(4)]
    desk.ask("newcomer", 10)
    assert (sum(gone(*large)), sum(gone(*small))) == (0, 1)


def test_who_holds_just_a_fair_share_keeps_it() -> None:
    desk = Desk(queue_images=90)
    begun = desk.ask("flood", 61)
    begun.waiting -= 1  # and so stays
    fair = desk.ask("fair", 30)
    with pytest.raises(QueueFullError):
        desk.ask("newcomer", 10)
    assert gone(begun, fair) == [False, False]


def test_where_nothing_is_said_there_is_one_decoder() -> None:
    ledger = Ledger(10)
    ledger.decode_took(1.0, 1.0)
    ledger.admit(Ticket(ENGINE, 1, FOREVER, Turn("a", ORDINARY_PRIORITY)))
    assert ledger.waiting == 1


def test_what_has_begun_on_the_device_stays(desk: Desk) -> None:
    begun = desk.ask("flood", 64)
    begun.waiting -= 1
    whole = desk.ask("flood", 37)
    desk.ask("newcomer", 20)
    assert gone(begun, whole) == [False, True]
    desk.ask("other", 17)
    with pytest.raises(QueueFullError):
        desk.ask("third", 1)
    assert not begun.future.done()


def test_who_has_all_on_the_device_holds_nothing_of_the_queue(desk: Desk) -> None:
    for n in range(50):
        desk.ask(f"served-{n}").waiting = 0
    desk.ask("flood", 50)
    desk.ask("flood", 50)
    desk.ask("newcomer", 50)


def test_a_request_too_late_pushes_nobody_out(desk: Desk) -> None:
    flood = desk.ask("flood", 100)
    with pytest.raises(QueueFullError, match="ahead"):
        desk.ask("newcomer", 10, seconds=5.0)
    assert not flood.future.done()


def test_before_a_body_is_read_its_caller_is_refused_where_no_image_would_be_admitted(desk: Desk) -> None:
    flooder, newcomer = Caller("flood"), Caller("newcomer")
    desk.ask("flood", 50)
    desk.ledger.refuse_when_full(flooder)
    desk.ask("flood", 49)
    desk.ledger.refuse_when_full(flooder)
    desk.ask("flood", 1)
    with pytest.raises(QueueFullError, match="100 of 100"):
        desk.ledger.refuse_when_full(flooder)
    desk.ledger.refuse_when_full(newcomer)
    assert desk.ledger.waiting == 100, "asking pushes nobody out"
