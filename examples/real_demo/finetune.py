"""Fine-tunes DINOv2 for one task, as its users do: all weights, or LoRA adapters by peft; classifier on top.

Saved are the files that the libraries write: `Dinov2ForImageClassification.save_pretrained`, or peft's
adapter with the classifier in it and the configuration that names the labels beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from transformers import Dinov2ForImageClassification

from examples.from_packages.training import Report, silent
from examples.real_demo.pretrained import processor
from examples.real_demo.tasks import Task

LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"]
BATCH = 24
_REPORTED_STEPS = 20  # minutes on a busy machine


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn; adapters begin at nothing and learn faster."""

    steps: int = 240
    full_rate: float = 2e-5
    lora_rate: float = 4e-4
    classifier_rate: float = 2e-4
    warmup: float = 0.1
    seed: int = 5


@dataclass(frozen=True)
class Examples:
    """Preprocessed pictures [N, 3, S, S], the number of each one's label [N], and the labels' names."""

    pixels: Tensor
    targets: Tensor
    labels: tuple[str, ...]


def read_examples(folder: Path) -> Examples:
    """The pictures `folder/<label>/*.png`, labels in alphabetical order."""
    labels = tuple(sorted(path.name for path in folder.iterdir()))
    paths = [(path, number) for number, label in enumerate(labels) for path in (folder / label).glob("*.png")]
    prepare = processor()
    rows = [prepare(Image.open(path), return_tensors="pt")["pixel_values"] for path, _ in sorted(paths)]
    return Examples(torch.cat(rows), torch.tensor([number for _, number in sorted(paths)]), labels)


def finetune(model: Any, task: Task, examples: Examples, plan: Plan, report: Report = silent) -> Any:
    """The model after fine-tuning, a PeftModel where the task has a LoRA rank."""
    torch.manual_seed(plan.seed)
    if task.lora_rank:
        model = with_adapters(model, task.lora_rank)
    _train(model, task, examples, plan, report)
    return model.eval()


def with_classifier(pretrained: Path, examples: Examples) -> Any:
    """The pretrained encoder under a classifier that logistic regression fits to its features."""
    names = dict(enumerate(examples.labels))
    model: Any = Dinov2ForImageClassification.from_pretrained(
        pretrained, id2label=names, label2id={name: number for number, name in names.items()}
    )
    weight, bias = _fitted(features(model, examples.pixels), examples)
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
    return model.eval()


def with_adapters(model: Any, rank: int) -> Any:
    """The model with LoRA adapters at every linear layer of its blocks; its classifier is trained, too."""
    from peft import LoraConfig, get_peft_model  # an extra

    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=LINEAR_LAYERS, modules_to_save=["classifier"])
    return get_peft_model(model, config)


def features(model: Any, pixels: Tensor) -> Tensor:
    """What the classifier sees: class token and mean of the patches, [N, 2 D]."""
    with torch.inference_mode():
        tokens = [model.dinov2(part).last_hidden_state for part in torch.split(pixels, BATCH)]
    return torch.cat([torch.cat([part[:, 0], part[:, 1:].mean(dim=1)], dim=1) for part in tokens])


def predict(model: Any, pixels: Tensor) -> Tensor:
    """The number of each picture's label, [N]."""
    with torch.inference_mode():
        return torch.cat([model(part).logits.argmax(dim=-1) for part in torch.split(pixels, BATCH)])


def accuracy(model: Any, examples: Examples) -> float:
    """The share of the pictures that get their label."""
    return float((predict(model, examples.pixels) == examples.targets).float().mean())


def save(model: Any, folder: Path) -> None:
    """Writes the model as its library does; `preprocessor_config.json` comes last."""
    model.save_pretrained(folder)
    if hasattr(model, "peft_config"):
        model.config.save_pretrained(folder)  # has id2label, which an adapter has not
    processor().save_pretrained(folder)


def _train(model: Any, task: Task, examples: Examples, plan: Plan, report: Report) -> None:
    model.train()
    optimiser = _optimiser(model, plan)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        total_steps=plan.steps,
        pct_start=plan.warmup,
        cycle_momentum=False,
    )
    for step in range(1, plan.steps + 1):
        rows = torch.randint(len(examples.targets), (BATCH,))
        # Processors with bfloat16 need a third less time for a step; weights and gradients stay in float32.
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(varied(examples.pixels[rows], task.mirrored)).logits
        loss = cross_entropy(logits.float(), examples.targets[rows], label_smoothing=0.05)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % _REPORTED_STEPS == 0:
            report(f"{task.name}: step {step} of {plan.steps}, loss {loss.item():.3f}")


def _optimiser(model: Any, plan: Plan) -> torch.optim.Optimizer:
    rates: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = plan.lora_rate if "lora_" in name else plan.full_rate
            rates.setdefault(plan.classifier_rate if "classifier" in name else rate, []).append(parameter)
    return torch.optim.AdamW([{"params": group, "lr": rate} for rate, group in rates.items()])


def varied(pixels: Tensor, mirrored: bool) -> Tensor:
    """The pictures slightly turned, scaled and moved, and half of them mirrored where that is allowed."""
    count = len(pixels)
    angle = 0.06 * torch.randn(count)
    zoom = 1 + 0.05 * torch.randn(count)
    flip = torch.where(torch.rand(count) < 0.5 * mirrored, -1.0, 1.0)
    shift = 0.05 * torch.randn(2, count)
    rows = [
        torch.stack([zoom * angle.cos() * flip, -zoom * angle.sin(), shift[0]], dim=-1),
        torch.stack([zoom * angle.sin() * flip, zoom * angle.cos(), shift[1]], dim=-1),
    ]
    grid = affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    return grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _fitted(seen: Tensor, examples: Examples) -> tuple[Tensor, Tensor]:
    """Weight [C, 2 D] and bias [C] of a regularised logistic regression, as if features were standardised."""
    mean, scale = seen.mean(dim=0), seen.std(dim=0).clamp_min(1e-6)
    fit = LogisticRegression(C=0.01, max_iter=200)
    fit.fit(((seen - mean) / scale).numpy(), examples.targets.numpy())
    weight, bias = torch.from_numpy(fit.coef_).float() / scale, torch.from_numpy(fit.intercept_).float()
    if len(weight) == 1:  # of two classes it keeps the difference alone
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight, bias - weight @ mean
