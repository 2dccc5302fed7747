"""Memory of eight fine-tuned text encoders in the engine, over that of one of them in transformers.

    python -m benchmarks.text_memory [--json FILE] [--keep FOLDER]

The encoder has ModernBERT-base's sizes, a vocabulary of 256,000 and random weights. Every figure is of a
process of its own (`benchmarks.text_residents`). Takes about 20 minutes and 15 GB of disk.
`benchmarks.texts` measures memory against sessions of ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.random_text_models import modern_bert_base, store_of
from benchmarks.text_residents import held

TASKS, VOCABULARY = 8, 256_000


def eight_over_one(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Eight fine-tunes in the engine over one of them in transformers: tensors, and whole processes."""
    store, finetuned = store_of(folder / "modern_bert", modern_bert_base(VOCABULARY), TASKS)
    eight, one = held("engine", store), held("transformers", finetuned)
    tensors = sum(size for kind, size in eight["tensors"].items() if kind != "set_cache")
    ratios = {
        "text_memory_eight_over_one": tensors / one["tensors"]["parameters"],
        "text_resident_eight_over_one": eight["served"] / one["served"],
    }
    return ratios, {"eight_modern_bert": eight, "one_modern_bert": one}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--keep", type=Path, help="keep models and stores there, and take what is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratios, raw = eight_over_one(options.keep or Path(folder))
    for name, value in ratios.items():
        print(f"{name:36s} {value:8.3f}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({**ratios, "raw": raw, "tasks": TASKS}, indent=2) + "\n")


if __name__ == "__main__":
    main()
