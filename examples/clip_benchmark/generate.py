"""Files of exactly the names, shapes and sizes of the published models, with random numbers in them.

    python -m examples.clip_benchmark.generate vit-b-32 8 /tmp/hub --images /tmp/images
    export HF_HOME=/tmp/hub HF_HUB_OFFLINE=1
    mass-serve build examples/clip_benchmark/vit-b-32-8-tasks.yaml --out /tmp/store
    mass-serve eval /tmp/store /tmp/images --baseline pretrained --baseline tsv_m

HF_HOME is then a cache of the Hugging Face hub that looks as if everything had been fetched. A random encoder
classifies nothing: what this shows is that the recipe runs, how long it takes and how large the store is. The
task vectors have a spectrum that decays, and a few percent of the weights' norm, as fine-tuning makes them.
Names within the files, and which of them are pickles, are those of the published ones, which transformers 4
wrote; today's writes some otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

from examples.clip_benchmark.images import class_folder
from examples.clip_benchmark.recipes import ENCODERS, TASKS, finetuned_name, pretrained_name
from mass_serve.model_store.words import read_class_names

VOCABULARY_SIZE = 49_408
TASK_RANK = 64  # of a task vector, whose singular values fall off as 1 / (1 + i)
TASK_SHARE = 0.03  # of the norm of the weights
PICKLED = {"vit-b-32", "vit-b-16"}  # whose pretrained model is published as a pickle alone
WEIGHTS_FILE, PICKLE_FILE = "model.safetensors", "pytorch_model.bin"
_VISION: dict[str, dict[str, int]] = {
    "vit-b-32": {"patch_size": 32},
    "vit-b-16": {"patch_size": 16},
    "vit-l-14": {
        **{"patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096},
        **{"num_hidden_layers": 24, "num_attention_heads": 16},
    },
}
_TEXT: dict[str, dict[str, int]] = {
    "vit-l-14": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}
_TINY: dict[str, dict[str, int]] = {
    "vision": {
        **{"image_size": 32, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 2, "num_attention_heads": 4},
    },
    "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
}


# Its parts are what it was given to its types, and configurations in fact.
def configuration(encoder: str, tiny: bool = False) -> Any:
    """The CLIPConfig of a published CLIP; with `tiny` of one that tests have time for."""
    vision, text = (_TINY["vision"], _TINY["text"]) if tiny else (_VISION[encoder], _TEXT.get(encoder, {}))
    width = 16 if tiny else _TEXT.get(encoder, {}).get("hidden_size", 512)
    # The published ends of a text are those of another tokenizer.
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    texts: dict[str, Any] = {**text, **ends, "vocab_size": VOCABULARY_SIZE, "projection_dim": width}
    visions: dict[str, Any] = {**vision, "projection_dim": width}
    return CLIPConfig(text_config=texts, vision_config=visions, projection_dim=width)


def generate(encoder: str, count: int, hub: Path, tiny: bool = False) -> None:
    """Fills HF_HOME `hub` with the pretrained model and those of the first `count` tasks."""
    config = configuration(encoder, tiny)
    torch.manual_seed(0)
    model: Any = CLIPModel(config)
    with TemporaryDirectory(dir=hub) as folder:
        base = Path(folder) / "base"
        model.save_pretrained(base)
        if encoder in PICKLED:
            _pickle(base)
        _write_preprocessing(base, config.vision_config.image_size)
        _write_tokenizer(base)
        _publish(base, pretrained_name(encoder), hub)
    vision = model.vision_model.state_dict()
    del model
    for number, task in enumerate(list(TASKS)[:count], start=1):
        with TemporaryDirectory(dir=hub) as folder:
            _finetuned(config.vision_config, vision, number).save_pretrained(folder)
            _prefix(Path(folder) / WEIGHTS_FILE)
            _publish(Path(folder), finetuned_name(encoder, task), hub)


def _finetuned(config: Any, pretrained: dict[str, Tensor], seed: int) -> Any:
    """A vision encoder without projection, as the published ones are, some way from the pretrained one."""
    model: Any = CLIPVisionModel(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            weight = pretrained[key.removeprefix("vision_model.")]
            parameter.copy_(weight + _change(weight, generator))
    return model


def _change(weight: Tensor, generator: torch.Generator) -> Tensor:
    """A task vector: of a matrix `u diag(1 / (1 + i)) v`, of anything else noise; a share of its norm."""
    matrix = weight.reshape(len(weight), -1) if weight.ndim > 1 else weight[None]
    rank = min(TASK_RANK, *matrix.shape)
    left = torch.randn(len(matrix), rank, generator=generator) / torch.arange(1, rank + 1)
    change = (left @ torch.randn(rank, matrix.shape[1], generator=generator)).reshape(weight.shape)
    scale = TASK_SHARE * max(float(weight.norm()), math.sqrt(weight.numel()) * 0.01)
    return change * (scale / float(change.norm()))


def _pickle(folder: Path) -> None:
    """Puts a pickle in the place of a CLIP's safetensors, with the buffers that used to be saved, too."""
    weights = load_file(folder / WEIGHTS_FILE)
    for tower in ("text_model", "vision_model"):
        count = len(weights[f"{tower}.embeddings.position_embedding.weight"])
        weights[f"{tower}.embeddings.position_ids"] = torch.arange(count)[None]
    torch.save(weights, folder / PICKLE_FILE)
    (folder / WEIGHTS_FILE).unlink()


def _prefix(file: Path) -> None:
    """Names the tensors of an image encoder as parts of a CLIP, as transformers 4 did."""
    weights = load_file(file)
    renamed = {f"vision_model.{key.removeprefix('vision_model.')}": weights[key] for key in weights}
    save_file(renamed, file, {"format": "pt"})


def _write_preprocessing(folder: Path, size: int) -> None:
    content = {
        **{"feature_extractor_type": "CLIPFeatureExtractor", "resample": 3},
        **{"do_resize": True, "size": size, "do_center_crop": True, "crop_size": size, "do_normalize": True},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def _write_tokenizer(folder: Path) -> None:
    """A tokenizer of the published one's size and form; its merges are those of all short words in turn."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    byte_letters = [chr(code) for code in printable]
    byte_letters += [chr(0x100 + place) for place in range(256 - len(printable))]
    tokens = [*byte_letters, *(f"{letter}</w>" for letter in byte_letters)]
    merges: list[tuple[str, str]] = []
    words = (
        "".join(word)
        for length in (2, 3, 4)
        for word in itertools.product(string.ascii_lowercase, repeat=length)
    )
    while len(tokens) + len(merges) < VOCABULARY_SIZE - 2:
        word = next(words)
        merges.append((word[:-1], word[-1]))
    tokens += ["".join(merge) for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    numbers = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")


def _publish(folder: Path, name: str, hub: Path) -> None:
    """Moves a model's files into the cache, under the names that the hub's client gives them."""
    repository = hub / "hub" / f"models--{name.replace('/', '--')}"
    commit = hashlib.sha1(name.encode()).hexdigest()
    snapshot, blobs, refs = repository / "snapshots" / commit, repository / "blobs", repository / "refs"
    for made in (snapshot, blobs, refs):
        made.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        blob = blobs / _blob_name(path)
        path.replace(blob)
        (snapshot / path.name).unlink(missing_ok=True)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    (refs / "main").write_text(commit)


def _blob_name(path: Path) -> str:
    """The SHA-256 of a large file, git's name of a small one."""
    if path.name in (WEIGHTS_FILE, PICKLE_FILE):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def generate_images(count: int, folder: Path) -> None:
    """One image of noise for each class of the first `count` tasks, in folders numbered as torchvision's."""
    random = np.random.default_rng(0)
    for task in list(TASKS)[:count]:
        classes = len(read_class_names(TASKS[task][1]))
        for number in range(classes):
            place = folder / task / class_folder(number, classes)
            place.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "0.png")


def main() -> None:
    """Makes what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("encoder", choices=ENCODERS)
    parser.add_argument("tasks", type=int, choices=range(1, len(TASKS) + 1), metavar="TASKS")
    parser.add_argument("hub", type=Path, metavar="HF_HOME")
    parser.add_argument("--images", type=Path, metavar="DATA", help="make images here, too")
    parser.add_argument("--tiny", action="store_true", help="small models under the same names")
    arguments = parser.parse_args()
    arguments.hub.mkdir(parents=True, exist_ok=True)
    generate(arguments.encoder, arguments.tasks, arguments.hub, arguments.tiny)
    if arguments.images is not None:
        generate_images(arguments.tasks, arguments.images)


if __name__ == "__main__":
    main()
