"""KServe's own client of v1, in a process of its own.

    python -m tests.server.protocols.kserve_client URL MODEL

Importing it registers messages of gRPC that Triton's client registers too. The instances come on standard
input; it prints what it was answered, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from httpx import HTTPStatusError
from kserve import InferenceRESTClient, RESTConfig


async def ask(url: str, model: str, instances: list[Any]) -> dict[str, Any]:
    """Asks whether a model is ready, for predictions, and for an explanation."""
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        ready = await client.is_model_ready(url, model)
        answer = await client.infer(url, {"instances": instances}, model)
        try:
            explained = await client.explain(url, model, {"instances": instances})
        except HTTPStatusError as error:
            explained = {"refused": str(error)}
    return {"ready": ready, "explained": explained, **answer}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], sys.argv[2], json.load(sys.stdin)))))
