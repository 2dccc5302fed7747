"""Serving by one process, or by several front ends before the one of the device, as the settings say.

serves = prepared(settings, source)  # raises SettingsError for settings that do not fit this machine
code = serves(listen_together(settings.host, settings.port, settings.front_ends))
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import structlog

from mass_serve.engine import EngineSource
from mass_serve.server.app import create_app, transports
from mass_serve.server.errors import LoadTimeoutError
from mass_serve.server.fronts.device import Device
from mass_serve.server.fronts.listening import reserve
from mass_serve.server.fronts.share import check_front_ends, share_of
from mass_serve.server.fronts.supervisor import Supervisor
from mass_serve.server.operation.page.samples import offered_samples
from mass_serve.server.serving.keys import Access
from mass_serve.server.serving.tls import TlsFiles
from mass_serve.server.settings import Settings, SettingsError
from mass_serve.server.web.process import SWITCH_SECONDS, leave_at_once, need_descriptors, run

log = structlog.get_logger(__name__)

# Takes a listening socket for each front end, serves until told to stop, and returns the exit code.
Serving = Callable[[Sequence[socket.socket]], int]


def prepared(settings: Settings, source: EngineSource) -> Serving:
    """Returns what serves. Raises SettingsError for settings that do not fit this machine."""
    if settings.front_ends == 1:
        app = create_app(settings, source)
        return lambda listeners: run(app, settings, listeners[0])
    check_front_ends(settings)
    _check_files(settings)
    share = share_of(settings)
    return lambda listeners: _run_front_ends(settings, share, source, listeners)


def _check_files(settings: Settings) -> None:
    """Raises the SettingsError that each front end would end with."""
    Access(settings)
    TlsFiles.of(settings)
    offered_samples(settings)
    transports(settings)


def _run_front_ends(
    settings: Settings, share: Settings, source: EngineSource, listeners: Sequence[socket.socket]
) -> int:
    """Serves until told to stop. Returns the exit code: 0, or 1 where the device is lost or a drain failed.

    Raises what loading the engine raised, and SettingsError where too few files may be open or gRPC's port is
    taken. Ends the process with 1 where the first load hangs: the thread that reads cannot be ended.
    """
    need_descriptors(share)
    sys.setswitchinterval(SWITCH_SECONDS)
    with ExitStack() as stack:
        if settings.grpc_port is not None:
            reserved = stack.enter_context(_reserved(settings.host, settings.grpc_port))
            share = share.model_copy(update={"grpc_port": reserved.getsockname()[1]})
        device = Device(settings, source)
        supervisor = Supervisor(share, device, listeners)
        device.start()
        try:
            ends_well = supervisor.run()
        finally:
            device.close()
            supervisor.end()
    store = device.store
    if store.engine is None and store.hangs:
        log.error(str(LoadTimeoutError.after(settings.load_timeout)))
        leave_at_once(1)
    if store.engine is None and store.failure is not None:
        raise store.failure.error
    code = 0 if ends_well else 1
    if device.running:
        leave_at_once(code)
    return code


def _reserved(host: str, port: int) -> socket.socket:
    try:
        return reserve(host, port)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host} port {port}; choose another --grpc-port") from error
