"""mosec with the dense classifier, batched: `python -m benchmarks.http_peers.mosec_server --port P`."""

from __future__ import annotations

import json
from typing import Any

import mosec

from benchmarks.http_peers.dense import BATCH, DECODERS, DenseClassifier, pixels


class Decoder(mosec.Worker):
    """Makes images into pixels, in a process of its own as mosec's examples do it."""

    def deserialize(self, data: bytes) -> Any:
        return json.loads(data)["images"][0]["b64"]

    def forward(self, data: str) -> Any:
        return pixels(data)


class Classifier(mosec.Worker):
    """Answers batches; the front end is written in Rust."""

    def __init__(self) -> None:
        self.classifier = DenseClassifier()

    def forward(self, data: list[Any]) -> list[dict[str, object]]:
        return self.classifier.answers(data)


def main() -> None:
    """Serves until it is stopped."""
    server = mosec.Server()
    server.append_worker(Decoder, num=DECODERS)
    server.append_worker(Classifier, num=1, max_batch_size=BATCH, max_wait_time=5)
    server.run()


if __name__ == "__main__":
    main()
