"""From a store on disk to everything the engine keeps in memory, on its device and in its dtype."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mass_serve.backbone import Architecture, ClassificationHead, ExpertBank
from mass_serve.engine.inputs.preprocessing import ImagePreprocessor
from mass_serve.model_store.errors import ManifestError, StoreError
from mass_serve.model_store.format.calibration import COVARIANCE, IMAGES, MEANS, OWNER, is_calibration
from mass_serve.model_store.format.heads import BIAS, LOGIT_SCALE, WEIGHT, HeadTensors
from mass_serve.model_store.format.manifest import MANIFEST_FILE, PRETRAINED_FILE, Manifest, TaskEntry
from mass_serve.model_store.store import Store
from mass_serve.router import MODE_NAMES, PAPER, Calibration, HeadShape, RouterConfig, evidence_kinds


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

    @cached_property
    def shape(self) -> HeadShape:
        """What its signs are measured by."""
        return HeadShape.of(self.head.directions)

    def signs(self, embeddings: Tensor) -> Tensor:
        """The head signs [n, 3] of embeddings [n, P]: see `router.HeadShape.signs`."""
        return self.shape.signs(self.head.cosines(embeddings))


@dataclass(frozen=True)
class LoadedStore:
    """A store in memory. Task t is the t-th of the manifest, in `bank` and in `heads`."""

    store_revision: str
    config: Architecture
    preprocessing: ImagePreprocessor
    router: RouterConfig
    mode: str  # of `router.MODES`, or `router.PAPER`
    head_choice: str
    unrouted_below: float  # the familiarity below which no task is believed
    calibration: Calibration | None  # of the tasks that are here
    device: torch.device
    dtype: torch.dtype
    pretrained: dict[str, Tensor]
    first_pass: dict[str, Tensor]  # what the first pass reads: of the merged base, or of `pretrained`
    first_pass_nbytes: int  # beyond `pretrained`
    papers_on_merged_base: bool  # whether the first pass of the paper's mode is to run there
    bank: ExpertBank
    heads: tuple[TaskHead, ...]
    pretrained_sha256: str = ""  # of the file that `pretrained` came from
    experts: tuple[
        tuple[str, str], ...
    ] = ()  # path and SHA-256 of the file that each task's blocks came from
    left_out: tuple[str, ...] = ()  # tasks of the store that are not here

    @property
    def router_linear(self) -> str:
        """The linear that the router's feature enters."""
        return self.config.residual_linear(self.router.layer)

    def same_tasks(self, experts: Sequence[tuple[str, str]]) -> dict[int, int]:
        """Task of a store with these files -> the task here that came from the same."""
        places = {file: task for task, file in enumerate(self.experts)}
        return {task: places[file] for task, file in enumerate(experts) if file in places}


def load_store(
    url: str,
    device: torch.device,
    dtype: torch.dtype,
    mode: str | None = None,
    without: Collection[str] = (),
    previous: LoadedStore | None = None,
    calibrated: bool = True,
) -> LoadedStore:
    """Opens, verifies and loads the store at `url`, in its mode or in another, without some of its tasks.

    Of `previous`, the pretrained weights are shared and the blocks of unchanged tasks copied: a new revision
    of one task then costs little to read, and two engines side by side need the encoder once. The
    store's calibration is left out unless `calibrated`. Raises `model_store.errors.StoreError`, and
    ValueError if no task is left.
    """
    store = Store.open(url)
    manifest = store.manifest
    tasks = [task for task in manifest.tasks if task.name not in without]
    if not tasks:
        raise ValueError(f"{url} has no task that is not unloaded: load one of them")
    config = manifest.backbone
    digest = manifest.files[PRETRAINED_FILE]
    if previous is None or (previous.pretrained_sha256, previous.dtype) != (digest, dtype):
        pretrained = {name: _own(t, device, dtype) for name, t in store.load_pretrained().items()}
        previous = None
    else:
        pretrained = previous.pretrained
    bank = ExpertBank(config, pretrained, len(tasks))
    experts = tuple((task.experts_file, task.files[task.experts_file]) for task in tasks)
    kept = {} if previous is None else previous.same_tasks(experts)
    if previous is not None:
        bank.take_tasks(previous.bank, kept)
    for index, task in enumerate(tasks):
        if index not in kept:
            changes = store.load_experts(task.name)
            bank.set_task(index, changes.singular_vectors, changes.dense_deltas)
    mode = mode or _mode_of(manifest)
    calibrated = calibrated and mode != PAPER  # the paper's router has no use for it
    on_merged_base = runs_on_merged_base(manifest, mode)
    first_pass = _first_pass_weights(store, bank, mode, on_merged_base)
    return LoadedStore(
        store_revision=manifest.store_revision,
        config=config,
        preprocessing=ImagePreprocessor(manifest.preprocessing),
        router=router_config(manifest),
        mode=mode,
        head_choice=manifest.router.head_choice,
        unrouted_below=manifest.router.unrouted_below,
        calibration=_calibration(store, [task.name for task in tasks]) if calibrated else None,
        device=device,
        dtype=dtype,
        pretrained=pretrained,
        first_pass=first_pass,
        first_pass_nbytes=sum(t.nbytes for t in first_pass.values()) if on_merged_base else 0,
        papers_on_merged_base=runs_on_merged_base(manifest, PAPER),
        bank=bank,
        heads=tuple(_task_head(store, task, device) for task in tasks),
        pretrained_sha256=digest,
        experts=experts,
        left_out=tuple(task.name for task in manifest.tasks if task not in tasks),
    )


def _own(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy of our own: memory mapped to a file changes, or is gone, when somebody harms the file."""
    return tensor.to(device, dtype, copy=True)


def classification_head(stored: HeadTensors) -> ClassificationHead:
    """The head that a store's tensors make up, in float32 on the CPU."""
    own = {name: _own(t, torch.device("cpu"), torch.float32) for name, t in stored.tensors.items()}
    scale = float(own[LOGIT_SCALE]) if LOGIT_SCALE in own else None
    return ClassificationHead(own[WEIGHT], own.get(BIAS), scale)


def _mode_of(manifest: Manifest) -> str:
    """The mode that a store was built for. Raises ManifestError for one that the router does not have."""
    mode = manifest.router.mode
    if mode not in MODE_NAMES:
        raise ManifestError(
            f"{MANIFEST_FILE} is not valid: router.mode must be one of {', '.join(MODE_NAMES)}, not {mode!r}"
        )
    return mode


def router_config(manifest: Manifest) -> RouterConfig:
    """The router that a manifest describes."""
    served = {"mode", "head_choice", "first_pass", "unrouted_below"}
    return RouterConfig(**manifest.router.model_dump(exclude=served))


def runs_on_merged_base(manifest: Manifest, mode: str) -> bool:
    """Whether the first pass does. The paper's router is defined so: a store that was built for another mode
    chose its first pass for that one.
    """
    return manifest.router.first_pass == "merged_base" or PAPER == mode != manifest.router.mode


def first_pass_names(bank: ExpertBank, layer: int, mode: str) -> frozenset[str]:
    """The parameters that a first pass reads: in the paper's mode nothing above the router's layer."""
    if mode != PAPER:
        return frozenset(bank.pretrained)
    return bank.architecture.first_pass_parameters(bank.pretrained, layer)


def _first_pass_weights(store: Store, bank: ExpertBank, mode: str, on_merged_base: bool) -> dict[str, Tensor]:
    names = first_pass_names(bank, store.manifest.router.layer, mode)
    if not on_merged_base:
        return {name: tensor for name, tensor in bank.pretrained.items() if name in names}
    complete = bank.num_tasks == len(store.manifest.tasks)
    stored = store.load_merged_base() if complete else None
    if stored is None:
        every_task = range(bank.num_tasks)
        return bank.merged_parameters(names, every_task)
    like = next(iter(bank.pretrained.values()))
    return {name: _own(stored[name], like.device, like.dtype) for name in stored if name in names}


def _calibration(store: Store, names: Sequence[str]) -> Calibration | None:
    """The store's calibration for these of its tasks; None where it has none that fits them."""
    places, entry = store.manifest.calibrated_tasks(names), store.manifest.calibration
    tensors = None if places is None else store.load_calibration()
    if places is None or entry is None or tensors is None:
        return None
    kinds, tasks = evidence_kinds(store.manifest.backbone.depth), len(entry.tasks)
    if not is_calibration(tensors, kinds, tasks):
        return None  # made by a version of this program that had other evidence
    own = {name: tensor.to(torch.float64, copy=True) for name, tensor in tensors.items()}
    calibration = Calibration(own[MEANS], own[COVARIANCE], own[IMAGES], own[OWNER])
    if not calibration.is_usable:
        raise StoreError(
            f"{store.files.url}: the numbers of {entry.file} are no calibration: calibrate the store again"
        )
    return calibration.of_tasks(places)


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
