"""The memory of one way to serve texts, in a process of its own.

    python -m benchmarks.text_residents engine STORE
    python -m benchmarks.text_residents transformers MODEL
    python -m benchmarks.text_residents onnx FILE...
    python -m benchmarks.text_residents onnx_without_arena FILE...

Prints what the process holds beyond its imports when everything is loaded (`loaded`) and after traffic
(`served`): batches of 32 texts of 64 tokens, the texts of a batch shared out evenly among the tasks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks.random_text_models import random_ids
from benchmarks.resident_memory import resident_bytes
from benchmarks.text_peers import onnx_forward, onnx_session
from mass_serve.engine import Engine, TextQuery

BATCH, TOKENS, BATCHES = 32, 64, 3
WORDS = 30_000  # every vocabulary here has as many
Serve = Callable[[Sequence[Tensor]], object]  # texts, as their ids


def held(kind: str, *paths: Path) -> dict[str, Any]:
    """Returns what a process that serves in that way says that it holds."""
    command = [sys.executable, "-m", "benchmarks.text_residents", kind, *map(str, paths)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def engine(path: str) -> tuple[Serve, dict[str, int]]:
    """A store in the engine, and the bytes of its tensors by kind."""
    loaded = Engine.load(path, device="cpu", dtype="float32")
    names = list(loaded.tasks)

    def serve(texts: Sequence[Tensor]) -> object:
        words = [torch.stack([ids, torch.zeros_like(ids)], dim=1) for ids in texts]
        return loaded.classify_batch(
            [TextQuery(own, (names[row % len(names)],)) for row, own in enumerate(words)]
        )

    return serve, loaded.nbytes


def dense(path: str) -> tuple[Serve, dict[str, int]]:
    """One classifier of transformers, and the bytes of its tensors."""
    classifier: Any = transformers.AutoModelForSequenceClassification
    model = classifier.from_pretrained(path).eval()
    for weight in model.parameters():
        weight.data = weight.data.clone()  # pages of a file that nothing has read yet are not in memory

    @torch.inference_mode()
    def serve(texts: Sequence[Tensor]) -> object:
        return model(input_ids=torch.stack(list(texts))).logits

    return serve, {"parameters": sum(weight.nbytes for weight in model.parameters())}


def sessions(files: Sequence[str], *, keeps_memory: bool) -> tuple[Serve, dict[str, int]]:
    """A session of ONNX Runtime for each task (see `text_peers.onnx_session`)."""
    loaded = [onnx_session(Path(file), keeps_memory=keeps_memory) for file in files]

    def serve(texts: Sequence[Tensor]) -> object:
        return [onnx_forward(own, texts[task :: len(loaded)])() for task, own in enumerate(loaded)]

    return serve, {}


def main() -> None:
    """The command."""
    torch.set_num_threads(1)
    kind, *paths = sys.argv[1:]
    torch.ones(512, 512) @ torch.ones(512, 512)  # the arithmetic library's own buffers are no model's
    _ = transformers.BertForSequenceClassification, transformers.ModernBertForSequenceClassification
    if kind.startswith("onnx"):
        import onnxruntime  # noqa: F401 - the library is no model's either
    before = resident_bytes()
    ways = {
        "engine": lambda: engine(paths[0]),
        "transformers": lambda: dense(paths[0]),
        "onnx": lambda: sessions(paths, keeps_memory=True),
        "onnx_without_arena": lambda: sessions(paths, keeps_memory=False),
    }
    serve, tensors = ways[kind]()
    found = {"loaded": resident_bytes() - before}
    for seed in range(BATCHES):
        serve(list(random_ids([TOKENS] * BATCH, WORDS, seed)))
    print(json.dumps(found | {"served": resident_bytes() - before, "tensors": tensors}))


if __name__ == "__main__":
    main()
