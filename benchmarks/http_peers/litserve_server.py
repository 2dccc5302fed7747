"""LitServe with the dense classifier, batched: `python -m benchmarks.http_peers.litserve_server --port P`."""

import argparse
from collections.abc import Sequence

import litserve
from torch import Tensor

from benchmarks.http_peers.dense import BATCH, DECODERS, DenseClassifier, pixels


class ClassifierAPI(litserve.LitAPI):
    """Decodes, answers and batches in the worker process, as LitServe's documentation does it."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - of a CPU there is one
        self.classifier = DenseClassifier()

    # LitServe reads JSON where nothing says what a request is.
    def decode_request(self, request) -> Tensor:  # type: ignore[no-untyped-def]
        return pixels(request["images"][0]["b64"])

    def batch(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        return inputs

    def predict(self, inputs: Sequence[Tensor]) -> list[dict[str, object]]:
        return self.classifier.answers(inputs)

    def unbatch(self, output: list[dict[str, object]]) -> list[dict[str, object]]:
        return output

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        return output


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    api = ClassifierAPI(max_batch_size=BATCH, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=DECODERS)
    server.run(host=options.address, port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
