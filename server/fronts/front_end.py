"""One front end, which the device's process starts with a socket to listen on and one to talk to it.

It hears of nobody else what to do: whoever stops the service tells the device's process, and a signal to all
at once must not count twice.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import Lifespan

from mass_serve.engine import DeviceLostError
from mass_serve.model_store.storage.files import without_credentials
from mass_serve.server.app import create_app
from mass_serve.server.fronts.answer_form import loads
from mass_serve.server.fronts.beginning import SIGNALS, Beginning
from mass_serve.server.fronts.frames import Channel, Frame, Kind
from mass_serve.server.fronts.link import Link
from mass_serve.server.fronts.remote_engine import RemoteEngine, RemoteSource
from mass_serve.server.operation.logs import configure_logs
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving.polling import becomes_true
from mass_serve.server.serving.service import Service
from mass_serve.server.settings import SettingsError
from mass_serve.server.web.process import Beside, DrainingServer, run

ALIVE_SECONDS = 1.0


@dataclass(frozen=True)
class News:
    """Tells which engine serves in the device's process, and why no newer one does."""

    number: int
    trouble: str | None = None


class Orders:
    """Takes what the device's process says, on the link's thread, until the event loop looks."""

    def __init__(self, link: Link, render: Callable[[], object]) -> None:
        """`render` has the metrics of this process told."""
        self.link = link
        self.news = News(0)
        self.all_serve = False
        self.stops: list[bool] = []  # one for each order to stop: whether there is a grace period
        self._render = render

    def hear(self, frame: Frame) -> None:
        """Takes a message."""
        match frame.kind:
            case Kind.NEWS:
                self.news = News(frame.number, loads(frame.body))
            case Kind.STOP:
                self.stops.append(bool(frame.number))
            case Kind.ALL_SERVE:
                self.all_serve = True
            case Kind.RENDER:
                self._render()


class FrontServer(DrainingServer):
    """The server, which the device's process stops, and which ends with that."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        grace_seconds: float,
        beside: Sequence[Beside],
        *,
        orders: Orders,
        source: RemoteSource,
        joins: bool,
    ) -> None:
        super().__init__(config, service, grace_seconds, beside, beside_last=joins)
        self._orders, self._source = orders, source
        self._acted_on = News(0)
        self._told_serves = 0
        self._living: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, and to tell that the event loop turns, until that ends."""
        self._living = asyncio.create_task(self._tell_life())
        await super().startup(sockets)

    async def _tell_life(self) -> None:
        while True:
            self._orders.link.tell(Kind.ALIVE)
            await asyncio.sleep(ALIVE_SECONDS)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the device's process."""
        ignore_signals()
        yield

    async def on_tick(self, counter: int) -> bool:
        """Does what it was told to meanwhile, ten times a second."""
        while self._orders.stops:
            self.handle_exit(signal.SIGTERM if self._orders.stops.pop(0) else signal.SIGINT, None)
        if self._orders.link.is_lost:
            self._service.lose_device(DeviceLostError("the process that has the device has ended"))
        if self._orders.all_serve:
            self._service.waits_for_others = False
        self._follow()
        return await super().on_tick(counter)

    def _follow(self) -> None:
        """Says which engine serves here, and takes another, or its trouble, where there is news."""
        store, news = self._service.store, self._orders.news
        loads = store.oldest_asked_seconds > 0
        engine = store.engine
        if not isinstance(engine, RemoteEngine):
            return
        number = engine.described.number
        if number != self._told_serves:
            self._told_serves = number
            self._orders.link.tell(Kind.SERVES, number)
            self._acted_on = News(number)  # a load that has succeeded knows of no trouble
        if loads or not self._is_due(news, number):
            return
        self._source.told()
        self._acted_on = news
        store.reload()

    def _is_due(self, news: News, number: int) -> bool:
        """Tells whether another load would bring what is news, or is worth another try."""
        if news.number < number:  # of before an answer that was quicker
            return False
        if news != self._acted_on:
            return True
        failure = self._service.store.failure
        return news.number > number and failure is not None and failure.is_due()


class FrontScrapes:
    """Answers for all processes what Prometheus asks any of them. Whoever asks meanwhile gets the same."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._asked: Future[bytearray] | None = None

    async def text(self) -> bytes:
        """Returns the exposition of all processes."""
        if self._asked is None or self._asked.done():
            self._asked = self._link.asked(Kind.SCRAPE)
        # Others may wait for it when this one leaves.
        found: bytes = loads(await asyncio.shield(asyncio.wrap_future(self._asked)))
        return found


def main(listener: socket.socket, connected: socket.socket) -> int:
    """Serves until told to stop. Returns the exit code, as `run` does.

    Raises SettingsError for what only this process can find wrong.
    """
    for one in (listener, connected):
        one.set_inheritable(False)
    channel = Channel(connected)
    first = channel.receive()
    if first is None:
        return 1
    begin: Beginning = loads(first.body)
    settings = begin.settings
    configure_logs(settings)
    structlog.contextvars.bind_contextvars(process=begin.name)
    link = Link(channel)
    source = RemoteSource(link, prefetches=settings.resident_task_bytes is not None)
    app = create_app(settings, source)
    service: Service = app.state.service
    if begin.joins:
        app.router.lifespan_context = partial(_once_ready, app.router.lifespan_context, service, link)
    service.waits_for_others = not begin.joins
    metrics: Metrics = app.state.metrics
    metrics.leave_loads_out()
    app.state.scrapes = FrontScrapes(link)
    with ThreadPoolExecutor(1, "render") as renderer:
        orders = Orders(link, lambda: renderer.submit(tell_metrics, link, metrics))
        link.start(orders.hear)
        # What was imported stays, and to search it for garbage would hold up whoever waits for an answer.
        gc.freeze()
        gc.enable()
        try:
            server = partial(FrontServer, orders=orders, source=source, joins=begin.joins)
            return run(app, settings, listener, server)
        except Exception:
            if service.load_error is None:
                raise
            return 1  # the device's process says what it was


@asynccontextmanager
async def _once_ready(
    own: Lifespan[FastAPI], service: Service, link: Link, app: FastAPI
) -> AsyncIterator[None]:
    """Starts the server, and waits until it is ready: connections to it do, too, that others would answer."""
    async with own(app):
        await becomes_true(
            lambda: service.ready or not service.alive or link.is_lost, service.settings.request_timeout
        )
        yield


def tell_metrics(link: Link, metrics: Metrics) -> None:
    """Tells the device's process what this one counts."""
    link.tell(Kind.RENDERED, 0, metrics.render())


def ignore_signals() -> None:
    """Has no signal end this process, even if it came while all was imported."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def start(*descriptors: int) -> NoReturn:
    """Is the program: serves with the sockets of these descriptors, and ends the process."""
    ignore_signals()
    listener, connected = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    try:
        sys.exit(main(listener, connected))
    except SettingsError as error:
        sys.exit(f"error: {without_credentials(str(error))}")
