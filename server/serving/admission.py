"""What is admitted and not yet answered, what it will cost, and who may add to it.

    for pushed_out in ledger.admit(ticket):
        pushed_out.fail(QueueFullError("..."))

The ledger refuses a request whose answer would come too late. The prediction follows the fair order in which
work is done (`fair_queue`): all that is more urgent, all of the same caller, and of every other caller as
much as is taken while this one's is, which is in proportion to their shares and at most what it has.

What waits has a bound, in places: an image takes one, a text one for each of its tokens. While there is room
one caller may take all of it. When there is none, a caller with less than its fair share takes those of one
with more.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from mass_serve.engine import ServingEngine
from mass_serve.server.errors import QueueFullError
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.fair_queue import Turn
from mass_serve.server.serving.pace import Pace
from mass_serve.server.serving.ticket import Ticket

# Admission adds 20 % to the predicted wait: what comes next may be slower than the recent average.
ADMISSION_MARGIN = 1.2
# What an image still counts for in the decoders' pace when one more has been decoded.
DECODE_PACE_MEMORY = 0.98
# The same for what sizes turn out to be, beside what they were guessed to be.
SIZE_MEMORY = 0.98
# One image counts as at most so many times slower or quicker than expected: a few odd files of one caller
# would else have everybody refused as too late.
MOST_OFF = 4.0
# Nobody is refused for the pace of a device that has worked for less: its first batches are small ones, and
# what a batch takes whatever is in it makes an image of them seem to take a multiple.
FIRST_SECONDS = 2.0


@dataclass
class _Standing:
    """Holds what one caller has of the queue."""

    share: float
    places: int = 0
    untouched: list[Ticket] = field(default_factory=list)  # nothing of them is on the device; newest last


class Ledger:
    """Knows the work ahead and its pace. It is not safe for threads: only its owner, the batcher, asks and
    tells it anything, and has a lock for that."""

    def __init__(
        self,
        places: int,
        decoders: int = 1,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "images",
    ) -> None:
        """Has so many places; `unit` says what takes one."""
        self.places = places
        self.unit = unit
        self._decoders = decoders
        self._clock = clock
        self._device_pace = Pace()
        self._device_seconds = 0.0
        self._last_batch = (0, math.inf)  # its places and seconds
        self._decode_pace = Pace(DECODE_PACE_MEMORY)
        self._decode_pace.observe(1.0, 1.0)  # as expected, until more is known
        self._sizes = Pace(SIZE_MEMORY)
        self._sizes.observe(1.0, 1.0)  # as guessed, until more is known
        self.open: dict[Ticket, None] = {}  # in the order in which they came
        self.on_device = 0  # places

    @property
    def waiting(self) -> int:
        """The places of what is admitted and not yet on the device."""
        return sum(ticket.waiting for ticket in self.open)

    def decode_took(self, cost: float, seconds: float) -> None:
        """Learns how long an input takes to be ready, beside what is expected, from one."""
        self._decode_pace.observe(cost, min(max(seconds, cost / MOST_OFF), cost * MOST_OFF))

    def size_was(self, guessed: int, known: int) -> None:
        """Learns what the size of a request turned out to be: texts have fewer tokens than characters."""
        self._sizes.observe(guessed, known)

    def device_took(self, places: int, seconds: float) -> None:
        """Learns the pace of the device from a batch."""
        self._device_pace.observe(places, seconds)
        self._device_seconds += seconds
        self._last_batch = places, seconds

    def places_within(self, seconds: float) -> float:
        """Returns how many places a batch of so many seconds has: at the recent pace, or more as a trial.

        Small batches take longest for each place, so that the pace of small ones would keep them small. One
        that was in time is followed by a larger one: of twice the places if half of the time was enough,
        else of a quarter more.
        """
        pace = self._device_pace.per_unit
        if not pace:
            return math.inf
        places, took = self._last_batch
        trial = 0
        if took <= seconds:
            trial = places + (places if 2 * took <= seconds else max(1, places // 4))
        return max(seconds / pace, trial)

    def admit(self, ticket: Ticket) -> list[Ticket]:
        """Enters a request, wholly or not at all, and returns those that must leave for it.

        Raises QueueFullError where it would be answered too late or there is no room for it.
        """
        self._refuse_when_late(ticket)
        leaving = self._making_room(ticket.turn, ticket.size)
        if leaving is None:
            raise self._full()
        self.open[ticket] = None
        return leaving

    def forget(self, ticket: Ticket) -> None:
        """Gives the places of a request back, once it is answered or abandoned."""
        self.open.pop(ticket, None)
        ticket.waiting = 0

    def refuse_when_full(self, caller: Caller) -> None:
        """Raises QueueFullError where not even one place would be given to this caller now."""
        if self._making_room(caller.turn(), 1) is None:
            raise self._full()

    def _full(self) -> QueueFullError:
        return QueueFullError(f"The queue is full ({self.waiting} of {self.places} {self.unit}); try again.")

    def _refuse_when_late(self, ticket: Ticket) -> None:
        places = self._ahead(ticket, self._expected_size)
        decode_cost = self._ahead(ticket, lambda other: other.decode_cost) + ticket.decode_cost
        seconds = decode_cost * self._decode_pace.per_unit / self._decoders
        if self._device_seconds >= FIRST_SECONDS:
            work = self.on_device + places + self._expected_size(ticket)
            seconds += work * self._device_pace.per_unit
        # With nothing ahead it is tried: were it refused for a slow past, no request would ever show that the
        # next ones are quick.
        if places and self._clock() + ADMISSION_MARGIN * seconds > ticket.deadline:
            raise QueueFullError(
                f"{math.ceil(places)} {self.unit} are ahead, too many for an answer in time; try again later."
            )

    def _expected_size(self, ticket: Ticket) -> float:
        """Returns the places of what waits, as many as it should turn out to take where they are a guess."""
        return ticket.waiting * (1.0 if ticket.is_submitted else self._sizes.per_unit)

    def _ahead(self, ticket: Ticket, amount: Callable[[Ticket], float]) -> float:
        """Returns the work that is done before the last of this request's is, without its own.

        `urgent + own + sum over other callers of min(theirs, (own + this) / share * their share)`
        """
        turn = ticket.turn
        certain = own = 0.0
        theirs: defaultdict[str, float] = defaultdict(float)  # over the share of each
        shares: dict[str, float] = {}
        for other in self.open:
            if other.turn.caller == turn.caller and other.turn.priority <= turn.priority:
                own += amount(other)
            elif other.turn.priority < turn.priority:
                certain += amount(other)
            elif other.turn.priority == turn.priority:
                shares[other.turn.caller] = other.turn.share
                theirs[other.turn.caller] += amount(other)
        after = (own + amount(ticket)) / turn.share
        return certain + own + sum(min(theirs[name], after * shares[name]) for name in theirs)

    def _making_room(self, turn: Turn, places: int) -> list[Ticket] | None:
        """Returns the requests that leave for so many more places; None where none would be right to."""
        lacking = self.waiting + places - self.places
        if lacking <= 0:
            return []
        callers = self._standings(turn)
        fair = self.places / sum(caller.share for caller in callers.values())
        if callers[turn.caller].places + places > fair * turn.share:
            return None
        leaving: list[Ticket] = []
        while lacking > 0:
            over = [one for one in callers.values() if one.places > fair * one.share and one.untouched]
            if not over:
                return None
            largest = max(over, key=lambda one: one.places / one.share)
            leaving.append(largest.untouched.pop())
            largest.places -= leaving[-1].size
            lacking -= leaving[-1].size
        return leaving

    def _standings(self, turn: Turn) -> dict[str, _Standing]:
        """Returns what each caller has of the queue, with that of this turn, who may have nothing yet."""
        callers = {turn.caller: _Standing(turn.share)}
        for ticket in self.open:
            if ticket.waiting:
                caller = callers.setdefault(ticket.turn.caller, _Standing(ticket.turn.share))
                caller.places += ticket.waiting
                if ticket.waiting == ticket.size:
                    caller.untouched.append(ticket)
        return callers


@dataclass(frozen=True)
class Ledgers:
    """One of each unit: what another kind of store has left behind tells nothing of the pace of this one."""

    images: Ledger
    tokens: Ledger

    def of(self, engine: ServingEngine | None) -> Ledger:
        """Returns the one that counts what an engine reads."""
        return self.images if engine is None or engine.tokenizer is None else self.tokens

    @property
    def open(self) -> list[Ticket]:
        """Returns what is admitted and not yet answered."""
        return [*self.images.open, *self.tokens.open]
