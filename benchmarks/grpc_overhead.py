"""gRPC against HTTP: the same images, by Triton's clients of both, to one server in turns.

python -m benchmarks.grpc_overhead --json benchmarks/results/grpc_cpu.json
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

from benchmarks.http_overhead import photographs
from benchmarks.service.processes import Server, running_server
from benchmarks.timing import medians

BATCH = 32
AT_ONCE = 8


def grpc_address(server: Server) -> str:
    """Where a server listens for gRPC, from its log."""
    found = re.search(r"gRPC listens\s.*?address=(\S+)", server.log.read_text())
    if found is None:
        raise RuntimeError("the server does not listen for gRPC")
    return found[1]


def input_of(transport: Any, files: Sequence[bytes]) -> Any:
    """Some image files as a client's tensor."""
    tensor = transport.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(files, dtype=np.object_))
    return tensor


def some_over_http(client: tritonclient.http.InferenceServerClient, tensor: Any) -> None:
    """AT_ONCE requests, sent before the first answer is awaited."""
    for asked in [client.async_infer("auto", [tensor]) for _ in range(AT_ONCE)]:
        asked.get_result()


def some_over_grpc(client: tritonclient.grpc.InferenceServerClient, tensor: Any) -> None:
    """The same; the client hands answers to a function, on threads of its own."""
    answers: SimpleQueue[Any] = SimpleQueue()
    for _ in range(AT_ONCE):
        client.async_infer("auto", [tensor], lambda result, error: answers.put(error or result))
    for _ in range(AT_ONCE):
        answers.get().as_numpy("label")


def measure(rounds: int) -> dict[str, float]:
    """Seconds over gRPC as a share of those over HTTP: of one image, of a batch, and of several at once."""
    files = photographs(BATCH)
    with running_server(None, "--grpc-port", "0") as server:
        http = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=AT_ONCE)
        grpc = tritonclient.grpc.InferenceServerClient(grpc_address(server))
        one, batch = (
            (input_of(tritonclient.http, some), input_of(tritonclient.grpc, some))
            for some in (files[:1], files)
        )
        times = medians(
            {
                "http one_image": lambda: http.infer("auto", [one[0]]),
                "grpc one_image": lambda: grpc.infer("auto", [one[1]]),
                f"http batch_of_{BATCH}": lambda: http.infer("auto", [batch[0]]),
                f"grpc batch_of_{BATCH}": lambda: grpc.infer("auto", [batch[1]]),
                f"http {AT_ONCE}_at_once": lambda: some_over_http(http, one[0]),
                f"grpc {AT_ONCE}_at_once": lambda: some_over_grpc(grpc, one[1]),
            },
            rounds,
        )
    whats = [name.removeprefix("http ") for name in times if name.startswith("http ")]
    return {f"grpc_over_http_{what}": times[f"grpc {what}"] / times[f"http {what}"] for what in whats}


def main() -> None:
    """Measures and prints, and writes where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    text = json.dumps(measure(arguments.rounds), indent=2) + "\n"
    print(text, end="")
    if arguments.json is not None:
        arguments.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
