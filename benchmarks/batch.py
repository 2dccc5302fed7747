"""Jobs of `mass-serve batch`: throughput over the engine alone and over one file after the other, and memory.

    python -m benchmarks.batch [--json FILE] [--only images|photographs|memory] [--rounds N] [--keep FOLDER]
                               [--images N] [--photographs N] [--texts N]

`images` has JPEGs of the encoder's own size in an archive, and an encoder of ViT-B/32's sizes with random
weights: a job against the engine on pixels that are decoded already. `photographs` has JPEGs of 12 million
pixels and the demo store: a job against decoding every file and answering then, as `classify` once did.
`memory` has a million short texts and a tiny encoder. Times are a clock's, the medians of rounds that take
turns. Takes about 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import transformers
from PIL import Image

from benchmarks.random_models import VIT_B_32, write_checkpoints
from benchmarks.random_text_models import CLASSES, FIRST_WORD, store_of
from benchmarks.timing import medians
from mass_serve.engine import Engine, Query, Question
from mass_serve.inputs.images import FORMATS, ImageLimits, decode_image
from mass_serve.jobs import IMAGE, TEXT, Asked, Columns, Job, JobProgress, RowForm, run_job
from mass_serve.jobs.preparing import DEFAULT_LIMITS
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.plan import TaskInput
from mass_serve.server.startup import demo_store

BATCH, TASKS = 32, 2
TEXT_BATCH = 256
PHOTOGRAPH = (4000, 3000)  # pixels
LIMITS = ImageLimits(200_000_000, FORMATS)
Figures = dict[str, Any]


def job_of(inputs: Path, out: Path, columns: Columns, asked: Asked) -> Job:
    """A job that writes lines."""
    form = RowForm(top=1, texts=columns.reads_texts, entities=False, embedding=False)
    return Job([str(inputs)], out, "jsonl", columns, asked, form)


def run_once(engine: Engine, inputs: Path) -> None:
    """Runs a whole job of images, with the server's batches, into a folder of its own."""
    asked = Asked(
        Question(),
        batch_inputs=BATCH,
        workers=min(8, os.cpu_count() or 1),
        limits=replace(DEFAULT_LIMITS, images=LIMITS),
    )
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(inputs, Path(folder) / "out", Columns(reads_texts=False, input=IMAGE), asked)
        done = run_job(engine, job, {}, lambda _: None)
    if done.counts.failed or not done.counts.inputs:
        raise AssertionError(f"the job came to {done.counts}")


def jpegs(count: int, size: tuple[int, int]) -> Iterator[bytes]:
    """Yields JPEGs of clouds with some noise, which have about the bytes of photographs."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        coarse = generator.integers(0, 256, (size[1] // 20, size[0] // 20, 3), dtype=np.uint8)
        clouds = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
        noise = generator.integers(-8, 9, clouds.shape, dtype=np.int16)
        stream = io.BytesIO()
        Image.fromarray((clouds + noise).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        yield stream.getvalue()


def answer(engine: Engine, queries: Sequence[Query]) -> None:
    """Answers all queries in full batches."""
    for start in range(0, len(queries), BATCH):
        engine.classify_batch(queries[start : start + BATCH]).all_answers()


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    rounds: int
    images: int
    photographs: int
    texts: int


def over_the_engine(folder: Path, options: Options) -> Figures:
    """A job over the engine alone, on images that cost little to decode."""
    if not (folder / "store" / MANIFEST_FILE).exists():
        pretrained, finetuned = write_checkpoints(folder / "checkpoints", VIT_B_32, TASKS)
        inputs = [TaskInput(path.name, path) for path in finetuned]
        build(pretrained, inputs, folder / "store", BuildOptions(format="bfloat16"))
    engine = Engine.load(str(folder / "store"), dtype="float32")
    files = list(jpegs(options.images, (224, 224)))
    with tarfile.open(folder / "images.tar", "w") as archive:
        for number, data in enumerate(files):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    queries = [Query(engine.preprocessing.preprocess(decode_image(data, LIMITS))) for data in files]
    variants: dict[str, Callable[[], object]] = {
        "engine": lambda: answer(engine, queries),
        "job": lambda: run_once(engine, folder / "images.tar"),
    }
    times = medians(variants, options.rounds)
    seconds = {f"{name}_seconds_of_images": value for name, value in times.items()}
    return {"job_over_engine": times["engine"] / times["job"], **seconds}


def over_one_by_one(folder: Path, options: Options) -> Figures:
    """A job over what `classify` did before: all files decoded on one thread, and answered then."""
    engine = Engine.load(demo_store(), dtype="float32")
    photographs = folder / "photographs"
    photographs.mkdir(exist_ok=True)
    for number, data in enumerate(jpegs(options.photographs, PHOTOGRAPH)):
        (photographs / f"{number}.jpg").write_bytes(data)
    paths = sorted(photographs.iterdir())

    def one_by_one() -> None:
        pixels = [engine.preprocessing.preprocess(decode_image(p.read_bytes(), LIMITS)) for p in paths]
        answer(engine, [Query(one) for one in pixels])

    times = medians({"one_by_one": one_by_one, "job": lambda: run_once(engine, photographs)}, options.rounds)
    seconds = {f"{name}_seconds_of_photographs": value for name, value in times.items()}
    return {"job_over_one_by_one": times["one_by_one"] / times["job"], **seconds}


def memory(folder: Path, options: Options) -> Figures:
    """What a job of many texts has resident, with its worker processes, as it goes on."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config: Any = transformers.BertConfig
    store, _ = store_of(folder / "texts", config(vocab_size=500, num_labels=CLASSES, **sizes), TASKS)
    generator = np.random.default_rng(0)
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        for length in generator.integers(1, 12, options.texts):
            words = " ".join(f"w{word}" for word in generator.integers(FIRST_WORD, 500, length))
            file.write(json.dumps({"text": words}) + "\n")
    engine = Engine.load(str(store), dtype="float32")
    resident: dict[int, int] = {}
    step = max(1, options.texts // 10)

    def told(progress: JobProgress) -> None:
        if progress.inputs // step > len(resident):
            resident[progress.inputs] = resident_bytes()
            print(f"{progress.inputs:>10,} texts {resident[progress.inputs] / 1e6:8.1f} MB", flush=True)

    # One task is named, so that a text costs little: what is measured is what the job holds.
    asked = Asked(Question(("task0",)), batch_inputs=TEXT_BATCH)
    columns = Columns(reads_texts=True, input=TEXT)
    with tempfile.TemporaryDirectory() as out:
        run_job(engine, job_of(folder / "texts.jsonl", Path(out) / "out", columns, asked), {}, told)
    # Of the first tenth the allocator still learns.
    _, *later = resident.values()
    return {
        "texts": options.texts,
        "memory_last_over_first": later[-1] / later[0],
        "resident_bytes": {str(count): size for count, size in resident.items()},
    }


def resident_bytes() -> int:
    """The resident memory of this process and those that it has started."""
    process = psutil.Process()
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


PARTS: dict[str, Callable[[Path, Options], Figures]] = {
    "images": over_the_engine,
    "photographs": over_one_by_one,
    "memory": memory,
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write all figures here, beside those of other parts")
    parser.add_argument("--only", choices=PARTS, help="measure this part alone")
    parser.add_argument(
        "--keep", type=Path, help="keep stores and inputs there, and take stores that are there"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--photographs", type=int, default=240)
    parser.add_argument("--texts", type=int, default=1_000_000, help="of the measurement of memory")
    options = parser.parse_args()
    much = Options(options.rounds, options.images, options.photographs, options.texts)
    figures: Figures = {}
    for name in [options.only] if options.only else PARTS:
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[name](options.keep or Path(folder), much)
        figures |= found | {f"threads_of_{name}": torch.get_num_threads()}
        for key, value in found.items():
            print(f"{key:36s} {value}", flush=True)
    if options.json is not None:
        before = json.loads(options.json.read_text()) if options.json.exists() else {}
        options.json.write_text(json.dumps(before | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
