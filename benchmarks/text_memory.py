"""Memory of eight fine-tuned text encoders behind one server, as ratios of what processes hold.

    python -m benchmarks.text_memory [--json FILE] [--keep FOLDER]

Two comparisons, with random weights: eight fine-tunes of an encoder of ModernBERT-base's sizes with a
vocabulary of 256,000 against one of them, and eight of BERT-base's sizes against eight sessions of ONNX
Runtime under the same traffic. Every figure is of a process of its own (`benchmarks.text_residents`). Takes
about 20 minutes and 20 GB of disk, and needs `pip install onnxruntime onnx onnxscript`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.random_text_models import bert_base, modern_bert_base, store_of
from benchmarks.text_peers import export_onnx

TASKS, VOCABULARY = 8, 256_000


def held(kind: str, *paths: Path) -> dict[str, Any]:
    """Returns what a process of `benchmarks.text_residents` says that it holds."""
    command = [sys.executable, "-m", "benchmarks.text_residents", kind, *map(str, paths)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


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


def over_sessions(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Eight fine-tunes in the engine over eight sessions of ONNX Runtime, each of which reads the file."""
    store, finetuned = store_of(folder / "bert", bert_base(), TASKS)
    file = folder / "bert" / "task0.onnx"
    if not file.exists():
        export_onnx(finetuned, file)
    ours, theirs = held("engine", store), held("onnx", *[file] * TASKS)
    return {"text_resident_over_onnx": ours["served"] / theirs["served"]}, {
        "eight_bert": ours,
        "eight_onnx_sessions": theirs,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--keep", type=Path, help="keep models and stores there, and take what is there")
    options = parser.parse_args()
    ratios, raw = dict[str, float](), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for compare in (over_sessions, eight_over_one):
            own, measured = compare(options.keep or Path(folder))
            ratios, raw = ratios | own, raw | measured
            for name, value in own.items():
                print(f"{name:36s} {value:8.3f}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({**ratios, "raw": raw, "tasks": TASKS}, indent=2) + "\n")


if __name__ == "__main__":
    main()
