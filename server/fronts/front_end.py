"""One front end: `python -m mass_serve.server.fronts.front_end LISTENER CHANNEL`.

The device's process starts it, and both are descriptors of sockets. It hears of nobody else what to do:
whoever stops the service tells the device's process, and a signal to all at once must not count twice.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import Lifespan

from mass_serve.engine import DeviceLostError
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.storage.files import without_credentials
from mass_serve.server.app import create_app
from mass_serve.server.fronts.answer_form import loads
from mass_serve.server.fronts.beginning import Beginning
from mass_serve.server.fronts.frames import Channel, Frame, Kind
from mass_serve.server.fronts.link import Link
from mass_serve.server.fronts.remote_engine import RemoteEngine, RemoteSource
from mass_serve.server.operation.logs import configure_logs
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.serving.polling import becomes_true
from mass_serve.server.serving.service import Service
from mass_serve.server.settings import SettingsError
from mass_serve.server.web.process import Beside, DrainingServer, run

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
    ) -> None:
        super().__init__(config, service, grace_seconds, beside)
        self._orders, self._source = orders, source
        self._acted_on = News(0)
        self._told_serves = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the device's process."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        yield

    async def on_tick(self, counter: int) -> bool:
        """Does what it was told to meanwhile, ten times a second."""
        while self._orders.stops:
            self.handle_exit(signal.SIGTERM if self._orders.stops.pop(0) else signal.SIGINT, None)
        if self._orders.link.is_lost:
            self._service.lose_device(DeviceLostError("the process that has the device has ended"))
        if self._orders.all_serve:
            self._service.waits_for_others = False
        engine = self._service.store.engine
        if isinstance(engine, RemoteEngine):
            self._follow(engine.described.number)
        return await super().on_tick(counter)

    def _follow(self, number: int) -> None:
        """Says which engine serves here, and takes another where there is news."""
        if number != self._told_serves:
            self._told_serves = number
            self._orders.link.tell(Kind.SERVES, number)
        news, before = self._orders.news, self._acted_on
        if news.number > max(number, before.number) or news.trouble != before.trouble:
            self._source.told()
            self._service.store.reload()
        self._acted_on = news


class FrontScrapes:
    """Answers for all processes what Prometheus asks any of them."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def text(self) -> bytes:
        """Returns the exposition of all processes."""
        found: bytes = loads(await asyncio.wrap_future(self._link.asked(Kind.SCRAPE)))
        return found


def main(listener: socket.socket, connected: socket.socket) -> int:
    """Serves until told to stop. Returns the exit code, as `run` does.

    Raises SettingsError, and what loading the first engine has raised in the device's process.
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
    app.state.scrapes = FrontScrapes(link)
    with ThreadPoolExecutor(1, "render") as renderer:
        orders = Orders(link, lambda: renderer.submit(tell_metrics, link, metrics))
        link.start(orders.hear)
        return run(app, settings, listener, partial(FrontServer, orders=orders, source=source))


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


if __name__ == "__main__":
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    try:
        sys.exit(main(*(socket.socket(fileno=int(descriptor)) for descriptor in sys.argv[1:3])))
    except SettingsError as error:
        sys.exit(f"error: {without_credentials(str(error))}")
    except (StoreError, ValueError, FloatingPointError):
        sys.exit(1)  # of the first load: the device's process says what it was
