"""KServe's own client, in a process of its own: `python -m tests.server.rpc.kserve_client ADDRESS`.

Its messages have the names of those of Triton's client, and protobuf knows but one of each in a process.
It prints what it was answered, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

from tests.pictures import picture


async def ask(address: str) -> dict[str, object]:
    """Asks about health, and about images in both forms of tensors."""
    client = InferenceGRPCClient(address)
    health = [
        await client.is_server_live(),
        await client.is_server_ready(),
        await client.is_model_ready("auto"),
    ]
    labels = {form: await _labels(client, form == "raw") for form in ("raw", "typed")}
    await client.close()
    return {"health": health, **labels}


async def _labels(client: InferenceGRPCClient, raw: bool) -> list[str]:
    images = np.array([picture(7), picture(9)], dtype=np.object_)
    tensor = InferInput("image", [2], "BYTES")
    if raw:
        tensor.set_data_from_numpy(images, binary_data=True)
    else:
        tensor.data = images.tolist()
    answer = await client.infer(InferRequest(model_name="auto", infer_inputs=[tensor]))
    return [
        text if isinstance(text, str) else text.decode()
        for output in answer.outputs
        if output.name == "label"
        for text in output.as_numpy().tolist()
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1]))))
