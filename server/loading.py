"""From a store on disk to everything the engine keeps in memory, on its device and in its dtype."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backbone import ClassificationHead, EncoderConfig, ExpertBank, first_pass_parameters
from model_store.backbone_spec import BackboneSpec
from model_store.heads import HeadTensors
from model_store.manifest import Manifest, TaskEntry
from model_store.store import Store
from router import RouterConfig
from server.preprocessing import Preprocessing


@dataclass(frozen=True)
class TaskInfo:
    """What a caller may know of a task."""

    name: str
    revision: str
    labels: tuple[str, ...]
    head_kind: str
    rank: int
    individual_accuracy: float | None


@dataclass(frozen=True)
class TaskHead:
    """A task's classification head and description."""

    info: TaskInfo
    head: ClassificationHead


@dataclass(frozen=True)
class LoadedStore:
    """A store in memory. Task t is the t-th of the manifest, in `bank` and in `heads`."""

    store_revision: str
    config: EncoderConfig
    preprocessing: Preprocessing
    router: RouterConfig
    head_choice: str
    device: torch.device
    dtype: torch.dtype
    pretrained: dict[str, Tensor]
    first_pass: dict[str, Tensor]  # what the first pass reads: of the merged base, or of `pretrained`
    first_pass_nbytes: int  # beyond `pretrained`
    bank: ExpertBank
    heads: tuple[TaskHead, ...]

    @property
    def router_linear(self) -> str:
        """The linear that the router's feature enters."""
        return f"blocks.{self.router.layer}.mlp.fc1"


def load_store(url: str, device: torch.device, dtype: torch.dtype) -> LoadedStore:
    """Opens, verifies and loads the store at `url`. Raises `model_store.errors.StoreError`."""
    store = Store.open(url)
    manifest = store.manifest
    config = encoder_config(manifest.backbone)
    pretrained = {name: t.to(device, dtype) for name, t in store.load_pretrained().items()}
    bank = ExpertBank(config, pretrained, len(manifest.tasks))
    for index, task in enumerate(manifest.tasks):
        experts = store.load_experts(task.name)
        bank.set_task(index, experts.singular_vectors, experts.dense_deltas)
    first_pass = _first_pass_weights(store, bank)
    shared = manifest.router.first_pass == "pretrained"
    return LoadedStore(
        store_revision=manifest.store_revision,
        config=config,
        preprocessing=Preprocessing(**manifest.preprocessing.model_dump()),
        router=router_config(manifest),
        head_choice=manifest.router.head_choice,
        device=device,
        dtype=dtype,
        pretrained=pretrained,
        first_pass=first_pass,
        first_pass_nbytes=0 if shared else sum(t.nbytes for t in first_pass.values()),
        bank=bank,
        heads=tuple(_task_head(store, task, device) for task in manifest.tasks),
    )


def encoder_config(spec: BackboneSpec) -> EncoderConfig:
    """The encoder of those sizes."""
    return EncoderConfig(**spec.model_dump(exclude={"family"}))


def classification_head(tensors: HeadTensors) -> ClassificationHead:
    """The head that these tensors are, in float32."""
    bias = None if tensors.bias is None else tensors.bias.float()
    return ClassificationHead(tensors.weight.float(), bias, tensors.logit_scale)


def router_config(manifest: Manifest) -> RouterConfig:
    """The router that a manifest describes."""
    return RouterConfig(**manifest.router.model_dump(exclude={"head_choice", "first_pass"}))


def _first_pass_weights(store: Store, bank: ExpertBank) -> dict[str, Tensor]:
    """The weights of the first pass, as far as it goes: nothing above the router's layer is kept."""
    router = store.manifest.router
    names = first_pass_parameters(bank.pretrained, router.layer)
    if router.first_pass == "pretrained":
        return {name: tensor for name, tensor in bank.pretrained.items() if name in names}
    stored = store.load_merged_base()
    if stored is None:
        every_task = range(bank.num_tasks)
        return bank.merged_parameters(names, every_task)
    return {name: stored[name].to(bank.pretrained[name]) for name in stored if name in names}


def _task_head(store: Store, task: TaskEntry, device: torch.device) -> TaskHead:
    head = classification_head(store.load_head(task.name)).to(device)
    info = TaskInfo(
        name=task.name,
        revision=task.revision,
        labels=tuple(task.labels),
        head_kind=task.head.kind,
        rank=task.rank,
        individual_accuracy=task.individual_accuracy,
    )
    return TaskHead(info, head)
