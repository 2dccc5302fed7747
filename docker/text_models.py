"""Writes tiny classifiers of texts, as transformers writes BERT's: a store of them is built in the image.

    python text_models.py FOLDER   # FOLDER/pretrained, FOLDER/guard and FOLDER/domain

Nothing is trained: `verify.sh` asks whether the image builds and serves such a store, not what it answers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# The image has no library of safetensors.
from mass_serve.model_store.format.tensor_files import TensorSpec, write_tensors

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(43)))
WIDTH, MLP_WIDTH, LAYERS, TOKENS = 32, 64, 2, 64
CONFIG: dict[str, Any] = {
    **{"model_type": "bert", "vocab_size": len(WORDS), "hidden_size": WIDTH, "intermediate_size": MLP_WIDTH},
    **{"num_hidden_layers": LAYERS, "num_attention_heads": 2, "max_position_embeddings": TOKENS},
    **{"type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12},
}


def encoder(generator: torch.Generator) -> dict[str, Tensor]:
    """The parameters of a BertModel."""
    tables = {"word": len(WORDS), "position": TOKENS, "token_type": 2}
    found = {
        f"embeddings.{name}_embeddings.weight": 0.1 * torch.randn(rows, WIDTH, generator=generator)
        for name, rows in tables.items()
    }
    found |= norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        stem = f"encoder.layer.{layer}"
        linears = {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")} | {
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (MLP_WIDTH, WIDTH),
            "output.dense": (WIDTH, MLP_WIDTH),
        }
        for name, shape in linears.items():
            found |= linear(f"{stem}.{name}", shape, generator)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found |= norm(f"{stem}.{name}")
    return found


def linear(name: str, shape: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
    """Weight and bias of a linear layer."""
    weight = 0.1 * torch.randn(shape, generator=generator)
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(shape[0])}


def norm(name: str) -> dict[str, Tensor]:
    """Weight and bias of a LayerNorm."""
    return {f"{name}.weight": torch.ones(WIDTH), f"{name}.bias": torch.zeros(WIDTH)}


def save(folder: Path, config: dict[str, Any], parameters: dict[str, Tensor]) -> None:
    """Writes a model's directory, with its vocabulary."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    specs = {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in parameters.items()}
    with (folder / "model.safetensors").open("wb") as file:
        write_tensors(file, specs, parameters.__getitem__)


def main() -> None:
    """The command."""
    folder, generator = Path(sys.argv[1]), torch.Generator().manual_seed(1)
    pretrained = encoder(generator)
    save(folder / "pretrained", {"architectures": ["BertModel"]}, pretrained)
    for name in ("guard", "domain"):
        tuned = {
            f"bert.{key}": value + 0.02 * torch.randn(value.shape, generator=generator)
            for key, value in pretrained.items()
        }
        tuned |= linear("bert.pooler.dense", (WIDTH, WIDTH), generator) | linear(
            "classifier", (3, WIDTH), generator
        )
        labels = {str(row): f"{name} {row}" for row in range(3)}
        save(folder / name, {"architectures": ["BertForSequenceClassification"], "id2label": labels}, tuned)


if __name__ == "__main__":
    main()
