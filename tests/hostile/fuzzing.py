"""Looks for input that a parser does not bear, guided by the code that it reaches: `make fuzz SECONDS=60`.

    python -m tests.hostile.fuzzing [--seconds N] [--only TARGET ...] [--corpus FOLDER]
    python -m tests.hostile.fuzzing --only TARGET --reproduce FILE

Needs the extra `fuzz` (atheris). Each target runs in a process of its own, from seeds that are well-formed;
what it finds interesting stays in the corpus for the next time. Input that ends in any exception but the
target's own refusals is kept, shown, and can be reproduced with the second command, which needs no atheris.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.hostile.mutations import Body

ROOT = Path(__file__).parents[2]
# A single input of so many bytes shows what a parser does; larger ones are a matter of limits.
LONGEST_INPUT = 8192
# An input that takes longer than this is a finding, whatever comes of it.
SLOWEST_SECONDS = 10
MOST_MEGABYTES = 2048
MOST_PIXELS = 1_000_000

Parse = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """One parser of ours: what to instrument, how to make the call, and well-formed input for it.

    Nothing of `modules` may be imported with this file: what is imported early is not instrumented.
    """

    modules: tuple[str, ...]
    make: Callable[[], tuple[Parse, tuple[type[Exception], ...]]]  # the call, and its refusals
    seeds: Callable[[], list[bytes]]


def _survey() -> tuple[Parse, tuple[type[Exception], ...]]:
    from mass_serve.inputs.errors import InputError
    from mass_serve.inputs.images import FORMATS, ImageLimits, survey

    limits = ImageLimits(max_pixels=MOST_PIXELS, formats=FORMATS)
    return lambda data: survey(data, limits), (InputError,)


def _decode() -> tuple[Parse, tuple[type[Exception], ...]]:
    from mass_serve.inputs.errors import InputError
    from mass_serve.inputs.images import FORMATS, ImageLimits, decode_image

    limits = ImageLimits(max_pixels=MOST_PIXELS, formats=FORMATS)
    return lambda data: decode_image(data, limits), (InputError,)


def _native() -> tuple[Parse, tuple[type[Exception], ...]]:
    from mass_serve.server.errors import ServiceError
    from mass_serve.server.protocols.limits import Limits
    from mass_serve.server.protocols.native.classify_requests import Options, parse_request

    types = ("", "application/json", "multipart/form-data; boundary=cut", "image/png")
    limits = Limits(max_images=64, max_top_k=1000)
    return (
        lambda data: parse_request(data[1:], types[data[0] % 4] if data else "", Options(), limits),
        (ServiceError,),
    )


def _hugging_face() -> tuple[Parse, tuple[type[Exception], ...]]:
    from mass_serve.server.errors import ServiceError
    from mass_serve.server.protocols.hugging_face.image_requests import read_image

    return lambda data: read_image(data, "application/json"), (ServiceError,)


def _hugging_face_texts() -> tuple[Parse, tuple[type[Exception], ...]]:
    from mass_serve.server.errors import ServiceError
    from mass_serve.server.protocols.hugging_face.text_requests import read_texts
    from mass_serve.server.protocols.limits import Limits

    limits = Limits(max_images=64, max_top_k=1000, max_text_characters=1000)
    # The first byte says whether text-embeddings-inference's path was asked.
    return lambda data: read_texts(data[1:], "", data[:1] == b"p", limits), (ServiceError,)


def _open_inference() -> tuple[Parse, tuple[type[Exception], ...]]:
    from mass_serve.server.errors import ServiceError
    from mass_serve.server.protocols.limits import Limits
    from mass_serve.server.protocols.open_inference.infer_requests import decompressed, parse_infer_request

    limits = Limits(max_images=64, max_top_k=1000)

    def parse(data: bytes) -> None:
        """The first byte chooses: JSON, packed JSON, or JSON whose length the next two tell."""
        kind, rest = data[:1], data[1:]
        if kind == b"z":
            rest = bytes(decompressed(rest, "gzip", 1 << 20, lambda _: None))
        length = str(int.from_bytes(rest[:2], "big")) if kind == b"b" else None
        parse_infer_request(rest[2:] if kind == b"b" else rest, length, limits)

    return parse, (ServiceError,)


def _multipart() -> tuple[Parse, tuple[type[Exception], ...]]:
    from mass_serve.server.errors import ServiceError
    from mass_serve.server.protocols.native.multipart_forms import parse_multipart

    return lambda data: parse_multipart(data, 100), (ServiceError,)


def _manifest() -> tuple[Parse, tuple[type[Exception], ...]]:
    from mass_serve.model_store.errors import ManifestError
    from mass_serve.model_store.format.manifest import parse_manifest

    return parse_manifest, (ManifestError,)


def _keys() -> tuple[Parse, tuple[type[Exception], ...]]:
    from mass_serve.server.serving.keys import KeyFile
    from mass_serve.server.settings import SettingsError

    # A file in memory: libFuzzer ends the process without a chance to remove one from the disk.
    file = os.memfd_create("keys")
    os.fchmod(file, 0o600)

    def parse(data: bytes) -> None:
        os.ftruncate(file, 0)
        os.pwrite(file, data, 0)
        KeyFile(Path(f"/proc/self/fd/{file}")).find("of-somebody-else")

    return parse, (SettingsError,)


def _pictures() -> list[bytes]:
    from tests.hostile.mutations import PICTURES

    return list(PICTURES.values())


def _bodies(path: str) -> list[Body]:
    from tests.hostile.mutations import bodies

    return [body for body in bodies() if body.path.startswith(path)]


def _text_seeds() -> list[bytes]:
    from tests.hostile.mutations import text_bodies

    return [
        (b"p" if body.path == "/predict" else b"h") + body.content
        for body in text_bodies()
        if b'"inputs"' in body.content and not body.path.startswith("/v2")
    ]


def _form() -> list[bytes]:
    from tests.hostile.mutations import form

    return [form()]


def _infer_seeds() -> list[bytes]:
    seeds = []
    for body in _bodies("/v2/"):
        length = next((line for line in body.headers if line.startswith("Inference")), "").partition(": ")[2]
        packed = any(line.startswith("Content-Encoding") for line in body.headers)
        if packed:
            seeds.append(b"z" + gzip.compress(body.content))
        else:
            seeds.append((b"b" + int(length).to_bytes(2, "big") if length else b"j") + body.content)
    return seeds


def _seeds_of(path: str, prefix: bytes = b"") -> Callable[[], list[bytes]]:
    return lambda: [prefix + body.content for body in _bodies(path)]


def _manifest_seeds() -> list[bytes]:
    """Small ones: the demo store's is larger than an input."""
    return [(ROOT / "tests/fixtures/store_v1/store/manifest.json").read_bytes()]


def _key_seeds() -> list[bytes]:
    lines = b"# ours\n\none-key\nanother name=somebody priority=1 share=2\n"
    return [lines, b"\xef\xbb\xbfkey\r\n", b"key name=a priority=1\nanother name=b share=0.5"]


TARGETS = {
    "survey": Target(("mass_serve.inputs",), _survey, _pictures),
    "decode": Target(("mass_serve.inputs", "PIL"), _decode, _pictures),
    "native": Target(("mass_serve.server", "python_multipart"), _native, _seeds_of("/v1/classify", b"\x01")),
    "hugging-face": Target(("mass_serve.server",), _hugging_face, _seeds_of("/models/")),
    "hugging-face-texts": Target(("mass_serve.server",), _hugging_face_texts, _text_seeds),
    "open-inference": Target(("mass_serve.server",), _open_inference, _infer_seeds),
    "multipart": Target(("mass_serve.server", "python_multipart"), _multipart, _form),
    "manifest": Target(("mass_serve.model_store",), _manifest, _manifest_seeds),
    "keys": Target(("mass_serve.server",), _keys, _key_seeds),
}


def fuzz(name: str, seconds: int, corpus: Path) -> bool:
    """Runs one target in a process of its own; False where it found something."""
    folder = corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
    options = (
        f"-max_total_time={seconds}",
        f"-timeout={SLOWEST_SECONDS}",
        f"-rss_limit_mb={MOST_MEGABYTES}",
        f"-max_len={max(LONGEST_INPUT, *map(len, TARGETS[name].seeds()))}",
        f"-artifact_prefix={corpus}/{name}-",
        "-print_final_stats=1",
        "-verbosity=0",
    )
    command = [sys.executable, "-m", "tests.hostile.fuzzing", "--inside", name, *options, str(folder)]
    found = subprocess.run(command, check=False).returncode
    if found:
        again = f"{Path(sys.executable).name} -m tests.hostile.fuzzing --only {name} --reproduce FILE"
        print(f"== {name}: FOUND something; FILE is what was written above. Reproduce: {again}", flush=True)
    return found == 0


def _inside(name: str, arguments: list[str]) -> None:
    """Fuzzes in this process, which does not come back."""
    import atheris

    target = TARGETS[name]
    with atheris.instrument_imports(include=list(target.modules)):
        parse, refusals = target.make()
        for seed in target.seeds():  # some modules are imported only when input needs them
            parse(seed)

    def one(data: bytes) -> None:
        with suppress(*refusals):
            parse(data)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def _reproduce(name: str, file: Path) -> None:
    parse, refusals = TARGETS[name].make()
    try:
        parse(file.read_bytes())
    except refusals as error:
        print(f"refused, as it should be: {error}")
    else:
        print("accepted")


def main() -> int:
    """The command."""
    if sys.argv[1:2] == ["--inside"]:
        _inside(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS), help="these targets")
    parser.add_argument("--corpus", type=Path, default=ROOT / ".fuzz", help="where inputs are kept")
    parser.add_argument("--reproduce", type=Path, metavar="FILE", help="try one input, without fuzzing")
    options = parser.parse_args()
    if options.reproduce is not None:
        _reproduce(options.only[0], options.reproduce)
        return 0
    held = [fuzz(name, options.seconds, options.corpus) for name in options.only]
    print(f"== {sum(held)} of {len(held)} targets found nothing in {options.seconds} s each")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
