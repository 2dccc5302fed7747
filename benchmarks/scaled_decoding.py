"""What decoding JPEGs at a part of their size changes: `python -m benchmarks.scaled_decoding STORE DATA`.

DATA is DATA/<task>/<class>/*.png, as `mass-serve eval` takes it. Every image is enlarged until its shortest
edge has as many times the pixels that the store resizes it to as `--times` says, written as a JPEG, and
answered twice: decoded whole, and as a store with `decode: scaled` does it. Times are a processor's, of
decoding and resizing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from mass_serve.engine import Classification, Engine, Query
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.inputs.images import ImageLimits

LIMITS = ImageLimits(10**8)
BATCH = 32
QUALITY = 90


def jpegs(data: Path, edge: int) -> Iterator[tuple[str, str, bytes]]:
    """Yields task, class and file of every image, its shortest edge enlarged to so many pixels at least."""
    for path in sorted(data.glob("*/*/*.png")):
        with Image.open(path) as found:
            image = found.convert("RGB")
        times = max(1.0, edge / min(image.size))
        width, height = (max(edge, round(times * length)) for length in image.size)
        stream = BytesIO()
        image.resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=QUALITY)
        yield path.parts[-3], path.parts[-2], stream.getvalue()


@dataclass
class Form:
    """One way to decode, and what came of it."""

    preprocessor: ImagePreprocessor
    seconds: float = 0.0
    answers: list[Classification] = field(default_factory=list)

    def answer(self, engine: Engine, files: Sequence[bytes]) -> None:
        """Decodes and answers one batch more."""
        began = time.thread_time()
        pixels = [self.preprocessor.preprocess_file(file, LIMITS) for file in files]
        self.seconds += time.thread_time() - began
        answers = engine.classify_batch([Query(one) for one in pixels]).answers
        self.answers += [one for one in answers if isinstance(one, Classification)]

    def told(self) -> list[tuple[str, str]]:
        """Returns the task and the label of every image."""
        return [(one.task, one.given[0]) for one in self.answers]


def compared(engine: Engine, data: Path, times: int) -> dict[str, float]:
    """Returns both accuracies, the share of answers that change, how far logits differ, and the times."""
    described = engine.preprocessing.described
    exact, scaled = (
        Form(ImagePreprocessor(described.model_copy(update={"decode": how}))) for how in ("exact", "scaled")
    )
    rows = list(jpegs(data, times * described.size))
    for start in range(0, len(rows), BATCH):
        files = [file for _, _, file in rows[start : start + BATCH]]
        for form in (exact, scaled):
            form.answer(engine, files)
    differences = torch.tensor(
        [
            float((one.logits - other.logits).abs().max())
            for one, other in zip(exact.answers, scaled.answers, strict=True)
            if one.task == other.task
        ]
    )
    wanted = [(task, label) for task, label, _ in rows]
    return {
        "times": times,
        "images": len(rows),
        "accuracy_exact": _share_of_equals(exact.told(), wanted),
        "accuracy_scaled": _share_of_equals(scaled.told(), wanted),
        "answers_changed": 1 - _share_of_equals(exact.told(), scaled.told()),
        "logit_difference_mean": float(differences.mean()),
        "logit_difference_p99": float(differences.quantile(0.99)),
        "milliseconds_exact": 1e3 * exact.seconds / len(rows),
        "milliseconds_scaled": 1e3 * scaled.seconds / len(rows),
    }


def _share_of_equals(some: Sequence[object], others: Sequence[object]) -> float:
    return sum(one == other for one, other in zip(some, others, strict=True)) / len(some)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("store")
    parser.add_argument("data", type=Path)
    parser.add_argument("--times", type=int, nargs="+", default=[4, 16], help="edge over the store's size")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    engine = Engine.load(options.store, dtype="float32")
    found = []
    for times in options.times:
        found.append(compared(engine, options.data, times))
        print(json.dumps(found[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
