"""Takes the weights out of a pickled model: run it where the program that wrote the file is installed.

    python state_dict_of_pickle.py nonlinear_finetuned.pt finetuned.safetensors

`torch.save(model)` writes a pickle that executes code of the model's own package when it is read, and the
files of OpenAI's CLIP are TorchScript archives. A server should read neither. This script reads them, so run
it on files that you trust only; it writes tensors alone. It needs torch and safetensors, and no MASS Serve.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def loaded(path: Path) -> Any:
    """Returns what the file holds, whatever has to be executed for it."""
    try:
        return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError:  # it is no TorchScript archive
        return torch.load(path, map_location="cpu", weights_only=False)


def state_dict_of(found: Any) -> dict[str, Tensor]:
    """Returns the tensors of a module, or of a dictionary that training code saved."""
    if isinstance(found, torch.nn.Module):
        found = found.state_dict()
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise SystemExit(f"it holds {type(found).__name__}, and neither a module nor a state dict")
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    # A tensor under two names is written twice: safetensors knows no shared memory.
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="takes the weights out of a pickled model")
    parser.add_argument("pickle", type=Path)
    parser.add_argument("out", type=Path, help="a .safetensors file")
    arguments = parser.parse_args()
    tensors = state_dict_of(loaded(arguments.pickle))
    save_file(tensors, arguments.out)
    print(f"{len(tensors)} tensors in {arguments.out}")


if __name__ == "__main__":
    main()
