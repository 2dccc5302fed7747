"""A real server process around the fake engine: `python -m tests.server.fake_server LOAD_SECONDS`.

Settings come from MASS_ variables. A negative LOAD_SECONDS makes loading fail. The first line of
standard output is the port.
"""

from __future__ import annotations

import sys
import time

from model_store.errors import ManifestError
from server.app import create_app
from server.engine import Engine
from server.logs import configure_logs
from server.process import listen, run
from server.settings import load_settings
from tests.server.fakes import FakeEngine, as_engine


def main() -> int:
    """Serves until stopped."""
    seconds = float(sys.argv[1])

    def load_engine() -> Engine:
        if seconds < 0:
            raise ManifestError("asked to fail")
        time.sleep(seconds)
        return as_engine(FakeEngine())

    settings = load_settings({"port": 0, "log_format": "json"})
    configure_logs(settings)
    listener = listen(settings.host, settings.port)
    print(listener.getsockname()[1], flush=True)
    return run(create_app(settings, load_engine), settings, listener)


if __name__ == "__main__":
    sys.exit(main())
