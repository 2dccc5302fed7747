"""Time, memory and size of a build: `python -m benchmarks.building [--against CHECKOUT] [--json FILE]`.

    python -m benchmarks.building --architecture vit-b-32 --tasks 8 --spectrum decaying --against ../before
    python -m benchmarks.building --architecture vit-l-14 --tasks 20 --rounds 1 --skip-exact

The variants (this version, this version with --exact, another checkout) build the same checkpoints in
processes of their own that take turns; a time is the least of a variant's processor seconds, on one thread.
Blocks are in 16 bits and arithmetic is in float32, whatever the defaults are.
`--models 2` builds two of the tasks, at the rank of all of them. `--merged-base` builds a store of the
paper's mode instead, and loads it, with its merged base stored and rebuilt. `--checkpoints FOLDER` keeps what
is built from, 350 MB for ViT-B/32 and 1.2 GB for ViT-L/14 each, and takes what an earlier run left there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.random_models import VIT_B_32, write_checkpoints
from mass_serve.backbone.architecture import Architecture, Block, PatchEmbedding, Pooling
from mass_serve.model_store.format.file_names import PRETRAINED_FILE
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import publish

VIT_L_14 = Architecture(
    PatchEmbedding(224, 14), Block(1024, 16, 4096, "quick_gelu", 1e-5), depth=24, pooling=Pooling(768)
)
ARCHITECTURES = {"vit-b-32": VIT_B_32, "vit-l-14": VIT_L_14}
ROOT = Path(__file__).resolve().parent.parent

# It has to run in a checkout of before, too.
_BUILD = """
import json, sys, time
from pathlib import Path
import torch
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput
models, out, tasks, options = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
torch.set_num_threads(1)
before = time.process_time()
inputs = [TaskInput(f"task{i}", models / f"task{i}") for i in range(tasks)]
build(models / "pretrained", inputs, out, BuildOptions(**options))
seconds = time.process_time() - before
# What getrusage tells is that of the process before, where that had more.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
memory = int(status["VmHWM"].split()[0]) * 1024
size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
print(json.dumps({"seconds": seconds, "peak_bytes": memory, "store_bytes": size}))
"""
_LOAD = """
import sys, time
import torch
from mass_serve.engine import Engine
torch.set_num_threads(1)
before = time.process_time()
Engine.load(sys.argv[1], dtype="float32")
print(time.process_time() - before)
"""

Figures = dict[str, float]


def _run(checkout: Path, script: str, *arguments: object) -> str:
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, cwd=checkout, check=True, text=True, stdout=subprocess.PIPE
    )
    return done.stdout


def _built(checkout: Path, models: Path, out: Path, options: argparse.Namespace, **chosen: object) -> Figures:
    # Versions before `format` know this key, too.
    chosen |= {"compression_ratio": 1 / options.tasks, "block_dtype": "bfloat16"}
    given = json.dumps(chosen)
    figures: Figures = json.loads(_run(checkout, _BUILD, models, out, options.models or options.tasks, given))
    return figures


def _build_times(models: Path, options: argparse.Namespace) -> dict[str, Figures]:
    variants: dict[str, tuple[Path, dict[str, object]]] = {"default": (ROOT, {})}
    if not options.skip_exact:
        variants["exact"] = ROOT, {"exact": True}
    if options.against is not None:
        variants["against"] = options.against.resolve(), {}
    least: dict[str, Figures] = {}
    for _ in range(options.rounds):
        for name, (checkout, chosen) in variants.items():
            found = _built(checkout, models, models / "store", options, **chosen)
            shutil.rmtree(models / "store")
            least[name] = {key: min(value, least.get(name, found)[key]) for key, value in found.items()}
    return least


def _merged_base_figures(models: Path, options: argparse.Namespace) -> Figures:
    out = models / "store"
    figures = _built(ROOT, models, out, options, mode="paper", merged_base="stored")
    for form in ("stored", "rebuilt"):
        if form == "rebuilt":
            _drop_merged_base(out)
        times = [float(_run(ROOT, _LOAD, out)) for _ in range(options.rounds)]
        figures[f"load_seconds_{form}"] = min(times)
    figures["store_bytes_rebuilt"] = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    return figures


def _drop_merged_base(out: Path) -> None:
    """Makes of a store the one that the same build makes with `--merged-base rebuilt`."""
    store = Store.open(out)
    files = {path: digest for path, digest in store.manifest.files.items() if path == PRETRAINED_FILE}
    for path in store.manifest.files.keys() - files.keys():
        (out / path).unlink()
    publish(store.files, store.manifest.model_copy(update={"merged_base": "rebuilt", "files": files}))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.building")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="vit-b-32")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--models", type=int, metavar="N", help="build N of the tasks alone")
    parser.add_argument("--spectrum", choices=("flat", "decaying"), default="decaying")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="the folder of another version")
    parser.add_argument("--skip-exact", action="store_true", help="leave --exact out")
    parser.add_argument(
        "--merged-base", action="store_true", help="build and load in the paper's mode instead"
    )
    parser.add_argument("--checkpoints", type=Path, metavar="FOLDER", help="keep the checkpoints here")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models, architecture = options.checkpoints or Path(folder), ARCHITECTURES[options.architecture]
        count = options.models or options.tasks
        if not (models / f"task{count - 1}").exists():
            write_checkpoints(models, architecture, count, decaying=options.spectrum == "decaying")
        measure = _merged_base_figures if options.merged_base else _build_times
        figures = json.dumps(measure(models, options), indent=2)
    print(figures)
    if options.json is not None:
        options.json.write_text(figures + "\n")


if __name__ == "__main__":
    main()
