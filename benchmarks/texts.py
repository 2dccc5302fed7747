"""Speed and memory of the engine over texts on one CPU thread, at BERT-base's sizes, as ratios in one run.

    python -m benchmarks.texts [--json FILE] [--keep FOLDER] [--rounds N]

Makes checkpoints with random weights and a store of 8 tasks from them. The dense model is one classifier
with one set of weights, the fastest of three: our backbone, transformers with PyTorch's attention, and ONNX
Runtime with its fused operations. Seconds are a processor's, the least of the rounds; variants take turns.
Memory is that of processes of their own (`benchmarks.text_residents`): the engine with all tasks, and a
session of ONNX Runtime for each. Takes about 20 minutes and 8 GB of disk, and needs `pip install onnxruntime
onnx onnxscript`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.random_text_models import as_text, bert_base, random_ids, store_of
from benchmarks.service.processes import PATIENCE, running_server
from benchmarks.text_peers import export_onnx, onnx_forward, onnx_session, transformers_forward
from benchmarks.text_residents import held
from benchmarks.timing import medians, minima
from mass_serve.backbone import DenseWeights, Packed, run
from mass_serve.engine import Engine, TextQuery

TASKS, BATCH, TOKENS = 8, 32, 64
MIXED_TOKENS = (3, 128)  # lengths of a mixed batch: every one from the first to the last is as likely
Variants = dict[str, Callable[[], object]]


def words_of(ids: Tensor) -> Tensor:
    """The words [n, 2] of ids [n], all of the first type."""
    return torch.stack([ids, torch.zeros_like(ids)], dim=1)


def named(engine: Engine, texts: Sequence[Tensor]) -> list[TextQuery]:
    """Each text with one task, tasks mixed."""
    names = list(engine.tasks)
    return [TextQuery(words_of(ids), (names[row % TASKS],)) for row, ids in enumerate(texts)]


def each(engine: Engine, texts: Sequence[Tensor]) -> list[TextQuery]:
    """Each text with every task, as `answer="each"` asks."""
    return [TextQuery(words_of(ids), (name,)) for ids in texts for name in engine.tasks]


def dense_forwards(engine: Engine, task: Path, onnx: Path, texts: Sequence[Tensor], suffix: str) -> Variants:
    """The same batch through one dense model, in three implementations."""
    weights = DenseWeights(engine.bank.pretrained)
    packed = Packed.of([words_of(ids) for ids in texts])

    @torch.inference_mode()
    def ours() -> Tensor:
        return run(engine.architecture, weights, packed).embedding

    return {
        f"dense_ours{suffix}": ours,
        f"dense_transformers{suffix}": transformers_forward(task, texts),
        f"dense_onnx{suffix}": onnx_forward(onnx_session(onnx), texts),
    }


def fastest_dense(times: Mapping[str, float], suffix: str) -> float:
    """Returns the seconds of the fastest dense model."""
    return min(times[f"dense_{kind}{suffix}"] for kind in ("ours", "transformers", "onnx"))


def equal_lengths(
    engine: Engine, task: Path, onnx: Path, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Texts of one length: a named task over the dense model, and all tasks over one."""
    texts = list(random_ids([TOKENS] * BATCH, bert_base().vocab_size))
    one, all_tasks = named(engine, texts), each(engine, texts)
    times = minima(
        dense_forwards(engine, task, onnx, texts, "") | {"named": lambda: engine.classify_batch(one)}, rounds
    )

    def as_often_as_each() -> None:
        """Takes about as long as all tasks do: what else the machine has to do slows both down alike."""
        for _ in range(TASKS):
            engine.classify_batch(one)

    pairs = minima(
        {"one_eight_times": as_often_as_each, "each": lambda: engine.classify_batch(all_tasks)},
        max(2, rounds // 2),
    )
    ratios = {
        "text_named_over_dense": times["named"] / fastest_dense(times, ""),
        "text_each_over_one": TASKS * pairs["each"] / pairs["one_eight_times"],
    }
    return ratios, times | pairs


def mixed_lengths(
    engine: Engine, task: Path, onnx: Path, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Texts of many lengths: packed over the fastest that pads them to the longest."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(MIXED_TOKENS[0], MIXED_TOKENS[1] + 1, (BATCH,), generator=generator).tolist()
    texts = list(random_ids(lengths, bert_base().vocab_size, seed=1))
    longest = list(random_ids([max(lengths)] * BATCH, bert_base().vocab_size, seed=1))
    queries = named(engine, texts)
    variants = dense_forwards(engine, task, onnx, texts, "_mixed")
    variants["packed_ours"] = variants.pop("dense_ours_mixed")
    variants["dense_ours_mixed"] = dense_forwards(engine, task, onnx, longest, "")["dense_ours"]
    variants["packed_named"] = lambda: engine.classify_batch(queries)
    times = minima(variants, rounds)
    padded = fastest_dense(times, "_mixed")
    ratios = {
        "text_packed_over_padded": padded / times["packed_ours"],
        "text_packed_named_over_padded_dense": padded / times["packed_named"],
    }
    return ratios, times | {"mixed_tokens": float(sum(lengths)), "padded_tokens": float(max(lengths) * BATCH)}


def http(engine: Engine, store: Path, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """The same batch over HTTP and in the engine, by the clock on the wall: two processes share in it."""
    texts = [as_text(ids) for ids in random_ids([TOKENS] * BATCH, bert_base().vocab_size)]
    task = next(iter(engine.tasks))
    body = {"texts": texts, "tasks": [task]}
    with running_server(store, "--request-timeout", str(PATIENCE)) as server:
        times = medians(
            {
                "http_seconds": lambda: server.client.post("/v1/classify", json=body).raise_for_status(),
                "engine_seconds": lambda: engine.classify(texts, [task]),
            },
            rounds,
        )
    return {"text_http_over_engine": times["engine_seconds"] / times["http_seconds"]}, times


def memory(store: Path, onnx: Path) -> tuple[dict[str, float], dict[str, float]]:
    """What a process holds after equal traffic: the engine over a session for each task.

    Sessions read the file of one task: each has its pages of it counted as its own, as of files that differ.
    """
    ours, theirs = held("engine", store), held("onnx", *[onnx] * TASKS)
    without_arena = held("onnx_without_arena", *[onnx] * TASKS)
    ratios = {
        "text_resident_over_onnx": ours["served"] / theirs["served"],
        "text_resident_over_onnx_without_arena": ours["served"] / without_arena["served"],
    }
    kinds = {"engine": ours, "onnx_sessions": theirs, "onnx_sessions_without_arena": without_arena}
    return ratios, {
        f"{kind}_{state}": of[state] for kind, of in kinds.items() for state in ("loaded", "served")
    }


def measure(folder: Path, rounds: int, path: Path | None) -> None:
    """All ratios and what they are made of, shown and written down as they are found."""
    store, task = store_of(folder / "bert", bert_base(), TASKS)
    onnx = folder / "bert" / "task0.onnx"
    if not onnx.exists():
        export_onnx(task, onnx)
    engine = Engine.load(str(store), device="cpu", dtype="float32")
    ratios, raw = dict[str, float](), dict[str, float]()
    for part in (
        partial(equal_lengths, engine, task, onnx, rounds),
        partial(mixed_lengths, engine, task, onnx, rounds),
        partial(http, engine, store, rounds),
        partial(memory, store, onnx),
    ):
        own, measured = part()
        ratios, raw = ratios | own, raw | measured
        for name, value in own.items():
            print(f"{name:36s} {value:8.3f}", flush=True)
        if path is not None:
            sizes = {"threads": 1, "batch": BATCH, "tokens": TOKENS, "tasks": TASKS}
            content = {**ratios, "raw": raw, "environment": {"torch": torch.__version__, **sizes}}
            path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--keep", type=Path, help="keep models and store there, and take what is there")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the server
    with tempfile.TemporaryDirectory() as folder:
        measure(options.keep or Path(folder), options.rounds, options.json)


if __name__ == "__main__":
    main()
