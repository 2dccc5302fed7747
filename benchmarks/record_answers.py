"""Every answer of an engine, all fields and all bits, to hold a change of the code against.

    python -m benchmarks.record_answers STORE IMAGES --out before.json      # with the code as it was
    python -m benchmarks.record_answers STORE IMAGES --against before.json  # with the code as it is

Records the images of a folder in every mode, dtype and execution form: in batches of 16, one by one, and
mixed with images whose task is named. Bits are those of one machine: a record is not compared on another.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mass_serve.engine import FORMS, Classification, Engine, Query
from mass_serve.router import MODES, PAPER

BATCH = 16
DTYPES = ("float32", "bfloat16")


def main() -> None:
    """Writes a record, or compares with one and ends with 1 where they differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--against", type=Path)
    asked = parser.parse_args()
    record = dict(_record(asked.store, asked.images))
    if asked.out is not None:
        asked.out.write_text(json.dumps(record), encoding="utf-8")
    if asked.against is not None:
        differing = list(_differences(json.loads(asked.against.read_text(encoding="utf-8")), record))
        print(*differing[:20], sep="\n")
        print(f"{len(record)} runs compared, {len(differing)} answers differ")
        sys.exit(1 if differing else 0)


def _record(store: str, folder: Path) -> Iterator[tuple[str, list[Any]]]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix == ".png")
    for mode in (PAPER, *MODES):
        for dtype in DTYPES:
            for form in FORMS:
                engine = Engine.load(store, mode=mode, dtype=dtype, execution=form)
                images = [engine.preprocessing.preprocess(Image.open(path).convert("RGB")) for path in paths]
                names = list(engine.tasks)
                alone = [Query(image) for image in images]
                # Every third image has its task named, every fifth a choice of two.
                mixed = [
                    Query(image, _candidates(number, names)) for number, image in enumerate(images[::-1])
                ]
                run = f"{mode}, {dtype}, {form}"
                yield f"{run}, batches", _answers(engine, alone, BATCH)
                yield f"{run}, mixed", _answers(engine, mixed, BATCH - 3)
                yield f"{run}, one by one", _answers(engine, alone[::7], 1)


def _candidates(number: int, names: Sequence[str]) -> tuple[str, ...] | None:
    if number % 3 == 0:
        return (names[number % len(names)],)
    if number % 5 == 0:
        return (names[number % len(names)], names[(number + 1) % len(names)])
    return None


def _answers(engine: Engine, queries: Sequence[Query], batch: int) -> list[Any]:
    answers: list[Any] = []
    for start in range(0, len(queries), batch):
        report = engine.classify_batch(queries[start : start + batch])
        answers += [_plain(one) if isinstance(one, Classification) else None for one in report.answers]
        answers.append([report.fallbacks, [list(names) for names in report.expert_sets]])
    return answers


def _plain(answer: Classification) -> dict[str, Any]:
    return {field.name: _exact(getattr(answer, field.name)) for field in fields(answer)}


def _exact(value: Any) -> Any:
    """JSON in which every float has all its bits."""
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape), _exact(value.flatten().tolist())]
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {key: _exact(one) for key, one in value.items()}
    return [_exact(one) for one in value] if isinstance(value, list | tuple) else value


def _differences(before: dict[str, list[Any]], now: dict[str, list[Any]]) -> Iterator[str]:
    if before.keys() != now.keys():
        yield f"other runs: {sorted(before.keys() ^ now.keys())}"
    for run in before.keys() & now.keys():
        for place, (old, new) in enumerate(zip(before[run], now[run], strict=True)):
            if old != new:
                keys = [key for key in old if old[key] != new.get(key)] if isinstance(old, dict) else []
                yield f"{run}: answer {place} differs in {', '.join(keys) or 'what the batch took'}"


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
