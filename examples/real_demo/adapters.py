"""LoRA adapters by peft: put on a model, and merged into its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, Dinov2ForImageClassification

LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"]


def with_adapters(model: Any, rank: int) -> Any:
    """The model with LoRA adapters at every linear layer of its blocks; its classifier is trained, too."""
    from peft import LoraConfig, get_peft_model  # an extra

    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=LINEAR_LAYERS, modules_to_save=["classifier"])
    return get_peft_model(model, config)


def merge_adapters(folder: Path, pretrained: Path) -> Any:
    """The model with the adapters in the folder merged into the pretrained weights."""
    from peft import PeftModel  # an extra

    base = Dinov2ForImageClassification.from_pretrained(pretrained, config=AutoConfig.from_pretrained(folder))
    return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
