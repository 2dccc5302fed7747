"""From a store on disk to everything the engine keeps in memory, on its device and in its dtype."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from mass_serve.backbone import (
    MULTI_CLASS,
    Architecture,
    ClassificationHead,
    ExpertBank,
    HiddenLayer,
    Labelling,
    MultiLabel,
    Parameters,
    TaskChanges,
    WordEmbedding,
    named,
    nbytes_of,
    quantised,
    reordered,
    weight_of,
)
from mass_serve.engine.heads import TaskHead
from mass_serve.engine.known_mode import known_mode
from mass_serve.engine.loaded_store import LoadedStore, early_linears, energy_linears
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.inputs.texts import TextTokenizer, TokenizerError
from mass_serve.kernels.backend import backend_for
from mass_serve.kernels.bfloat16 import wide_dtype
from mass_serve.kernels.reordered import gains_by_reordering
from mass_serve.merging.threads import side_by_side
from mass_serve.model_store.combined_experts import load_experts, source_of
from mass_serve.model_store.errors import ManifestError, StoreError
from mass_serve.model_store.format.calibration import (
    COVARIANCE,
    IMAGES,
    MEANS,
    OWNER,
    WEIGHTS,
    is_calibration,
)
from mass_serve.model_store.format.entries import RouterSpec, TaskEntry
from mass_serve.model_store.format.experts import TaskExperts
from mass_serve.model_store.format.file_names import PRETRAINED_FILE, TOKENIZER_FILE
from mass_serve.model_store.format.groups import groups_among
from mass_serve.model_store.format.heads import (
    BIAS,
    CLASS_MEANS,
    DENSE_BIAS,
    DENSE_WEIGHT,
    LOGIT_SCALE,
    NORM_BIAS,
    NORM_WEIGHT,
    WEIGHT,
    HeadTensors,
)
from mass_serve.model_store.format.manifest import encoder_of
from mass_serve.model_store.format.preprocessing import TextPreprocessing
from mass_serve.model_store.kept_experts import kept_experts
from mass_serve.model_store.store import Store
from mass_serve.router import (
    PAPER,
    Calibration,
    Combination,
    ModeName,
    evidence_kinds,
    mode_named,
)

# Where the weights before fine-tuning are read: of the store itself, or of what several processes share.
PretrainedReader: TypeAlias = Callable[[Store], Mapping[str, Tensor]]


def load_store(
    url: str,
    device: torch.device,
    dtype: torch.dtype,
    mode: ModeName | None = None,
    without: Collection[str] = (),
    previous: LoadedStore | None = None,
    calibrated: bool = True,
    trusted_keys: Path | None = None,
    read_pretrained: PretrainedReader = Store.load_pretrained,
    resident_task_bytes: int | None = None,
) -> LoadedStore:
    """Opens, verifies and loads the store at `url`, in its mode or in another, without some of its tasks.

    Of `previous`, the pretrained weights and the tokenizer are shared, and the weights of unchanged tasks
    too: a new revision of one task then costs little to read, and two engines side by side need the
    encoder once. The store's calibration is left out unless `calibrated`. With a file of `trusted_keys` one
    of them must have signed the store. With `resident_task_bytes` so much memory is for the weights of tasks,
    the others are read when they are used. Raises `model_store.errors.StoreError`, of which ManifestError is
    for a manifest with a mode that there is not, and ValueError for such a `mode` or if no task is left.
    """
    store = Store.open(url, trusted_keys)
    return load_opened(
        store, device, dtype, mode, without, previous, calibrated, read_pretrained, resident_task_bytes
    )


def load_opened(
    store: Store,
    device: torch.device,
    dtype: torch.dtype,
    mode: ModeName | None = None,
    without: Collection[str] = (),
    previous: LoadedStore | None = None,
    calibrated: bool = True,
    read_pretrained: PretrainedReader = Store.load_pretrained,
    resident_task_bytes: int | None = None,
) -> LoadedStore:
    """Loads a store that is open: see `load_store`."""
    manifest = store.manifest
    tasks = sorted(  # as `LoadedStore` has them; those of a kind keep their order
        (task for task in manifest.tasks if task.name not in without), key=lambda task: task.head.each_token
    )
    if not tasks:
        raise ValueError(f"{store.files.url} has no task that is not unloaded: load one of them")
    mode = known_mode(manifest.router) if mode is None else mode_named(mode)
    architecture = manifest.backbone
    _check_dtype(device, dtype)
    digest = manifest.files[PRETRAINED_FILE]
    before = previous
    if previous is not None and (previous.pretrained_sha256, previous.dtype) != (digest, dtype):
        previous = None  # of another encoder: nothing of it can be shared
    if previous is None:
        is_shared = read_pretrained is not Store.load_pretrained
        # Each is placed while the processor's cache has it, in memory that the one before has left.
        tensors = read_pretrained(store).items() if is_shared else store.pretrained_tensors()
        pretrained = placed_parameters(tensors, architecture, device, dtype, is_shared)
    else:
        pretrained = previous.pretrained
    experts = tuple(source_of(store, task) for task in tasks)
    ranks = [store.layout.ranks_of(task) for task in tasks]
    routing = routing_parameters(architecture, manifest.router, mode)
    bank = ExpertBank(architecture, pretrained, ranks, resident_task_bytes, routing)
    kept = {} if previous is None else previous.same_tasks(experts)
    if previous is not None:
        bank.take_tasks(previous.bank, kept)
    _read_tasks(store, [(place, task) for place, task in enumerate(tasks) if place not in kept], bank)
    calibrated = calibrated and mode != PAPER  # the paper's router has no use for it
    routed = [task for task in tasks if not task.head.each_token]
    on_merged_base = bool(routed) and runs_on_merged_base(manifest.router, mode)
    first_pass = _first_pass_weights(store, bank, dtype, mode, len(routed) if on_merged_base else 0)
    return LoadedStore(
        store_revision=manifest.store_revision,
        architecture=architecture,
        preprocessing=_preprocessor(store, None if before is None else before.preprocessing),
        router=manifest.router,
        mode=mode,
        calibration=_calibration(store, [task.name for task in tasks]) if calibrated else None,
        device=device,
        dtype=dtype,
        pretrained=pretrained,
        first_pass=first_pass,
        first_pass_nbytes=nbytes_of(first_pass) if on_merged_base else 0,
        bank=bank,
        heads=tuple(_task_head(store, task, device) for task in tasks),
        pretrained_sha256=digest,
        encoder=encoder_of(manifest),
        experts=experts,
        left_out=tuple(task.name for task in manifest.tasks if task.name in without),
        groups=groups_among(manifest.groups, {task.name for task in tasks}),
    )


def _read_tasks(store: Store, tasks: Sequence[tuple[int, TaskEntry]], bank: ExpertBank) -> None:
    """Reads what tasks changed into their places in the bank, as many at a time as there are threads.

    Where not all of them may stay in memory, their files stay open.
    """

    def read(one: tuple[int, TaskEntry]) -> None:
        place, task = one
        if bank.tasks.budget_bytes is None:
            bank.set_task(place, *_changes(load_experts(store, task.name)))
            return
        kept = kept_experts(store, task.name)
        bank.set_task(place, *_changes(kept.load()), read_again=lambda: _changes(kept.load()))

    deque(side_by_side(read, tasks), maxlen=0)


def _changes(experts: TaskExperts) -> TaskChanges:
    return experts.singular_vectors, experts.dense_deltas


def _preprocessor(
    store: Store, previous: ImagePreprocessor | TextTokenizer | None
) -> ImagePreprocessor | TextTokenizer:
    """Returns what prepares the store's images, or texts; the previous one where it is the same tokenizer.

    The library reads a large one for seconds, and no other thread runs meanwhile.
    """
    described, embedding = store.manifest.preprocessing, store.manifest.backbone.embedding
    if not isinstance(described, TextPreprocessing):
        return ImagePreprocessor(described)
    content = store.load_tokenizer()
    if content is None or not isinstance(embedding, WordEmbedding):
        raise ManifestError(f"{store.files.url} reads texts, and has no {TOKENIZER_FILE} or no words")
    try:
        prepared = _tokenizer(content, described, previous)
        prepared.check_fits(embedding.vocabulary, embedding.num_types)
        return prepared
    except TokenizerError as error:
        raise StoreError(f"{TOKENIZER_FILE} in {store.files.url} cannot be used: {error}") from error


def _tokenizer(
    content: bytes, described: TextPreprocessing, previous: ImagePreprocessor | TextTokenizer | None
) -> TextTokenizer:
    wanted = (content, described.max_tokens, described.cut_end)
    if (
        isinstance(previous, TextTokenizer)
        and (previous.content, previous.max_tokens, previous.truncation) == wanted
    ):
        return previous
    return TextTokenizer(*wanted)


def _check_dtype(device: torch.device, dtype: torch.dtype) -> None:
    """Raises ValueError for a dtype that the device does not compute in."""
    if dtype == torch.int8 and backend_for(device) == "fused":
        raise ValueError(
            f"dtype: int8 is computed on a CPU, and the device is {device.type}: use bfloat16, or auto"
        )


def placed_parameters(
    parameters: Iterable[tuple[str, Tensor]],
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype,
    is_shared: bool = False,
) -> Parameters:
    """The parameters of an encoder on the device in the dtype, in the form in which products are fastest.

    What is shared with other processes stays where it is.
    """
    if dtype == torch.int8:
        return quantised(parameters, architecture, wide_dtype(device))
    is_fused = backend_for(device) == "fused"
    if not is_fused and not is_shared and gains_by_reordering(device, dtype):
        return reordered(parameters, architecture, dtype)
    return {name: _placed(tensor, device, dtype) for name, tensor in parameters}


def _placed(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The tensor on the device in the dtype; the same one where it is so already."""
    return tensor.to(device, dtype)


def classification_head(stored: HeadTensors) -> ClassificationHead:
    """Makes a classification head of a store's tensors, in float32 on the CPU."""
    own = {name: _placed(t, torch.device("cpu"), torch.float32) for name, t in stored.tensors.items()}
    scale = float(own[LOGIT_SCALE]) if LOGIT_SCALE in own else None
    hidden, labelling = _hidden_layer(stored, own), _labelling(stored)
    return ClassificationHead(own[WEIGHT], own.get(BIAS), scale, hidden, labelling, own.get(CLASS_MEANS))


def _labelling(stored: HeadTensors) -> Labelling:
    if stored.thresholds is None:
        return MULTI_CLASS
    return MultiLabel(torch.tensor(stored.thresholds, dtype=torch.float32))


def _hidden_layer(stored: HeadTensors, own: Mapping[str, Tensor]) -> HiddenLayer | None:
    if stored.hidden is None:
        return None
    eps = stored.hidden.norm_eps
    norm = None if eps is None else (own[NORM_WEIGHT], own[NORM_BIAS], eps)
    return HiddenLayer(own[DENSE_WEIGHT], own[DENSE_BIAS], stored.hidden.activation, norm)


def routing_parameters(architecture: Architecture, router: RouterSpec, mode: ModeName) -> frozenset[str]:
    """The parameters by whose right sides a router judges: in the paper's mode those of one linear."""
    linears = [architecture.residual_linear(router.layer)]
    if mode != PAPER:
        linears += energy_linears(architecture)
    return frozenset(map(weight_of, linears))


def runs_on_merged_base(router: RouterSpec, mode: ModeName) -> bool:
    """Tells whether the first pass of a store that routes runs on the merged base in that mode.

    The paper's router is defined there, so where it is asked for in place of the store's mode, what the store
    says of its first pass does not count: that was chosen for the other mode.
    """
    return router.first_pass == "merged_base" or PAPER == mode != router.mode


def first_pass_names(
    architecture: Architecture, bank: ExpertBank, layer: int, mode: ModeName
) -> frozenset[str]:
    """The parameters that a first pass reads: in the paper's mode nothing above the router's layer."""
    if mode == PAPER:
        return architecture.first_pass_parameters(bank.pretrained, layer)
    return frozenset(bank.pretrained)


def _first_pass_weights(
    store: Store, bank: ExpertBank, dtype: torch.dtype, mode: ModeName, merged: int
) -> Parameters:
    """Returns what the first pass reads.

    That is the store's merged base or, where not all of its routed tasks are here, one of the first `merged`
    tasks of the bank; with 0 of them `pretrained`. One by another method than TSV-M stays that of all tasks,
    as to merge by it can take minutes.
    """
    architecture = bank.architecture
    names = first_pass_names(architecture, bank, store.manifest.router.layer, mode)
    if not merged:
        return named(bank.pretrained, names)
    complete = merged == len(store.manifest.routed_tasks)
    stored = store.load_merged_base() if complete or store.manifest.merged_base_method else None
    if stored is None:
        stored = bank.merged_parameters(names, range(merged))
    wanted = {name: tensor for name, tensor in stored.items() if name in names}
    return placed_parameters(wanted.items(), architecture, bank.device, dtype)


def _calibration(store: Store, names: Sequence[str]) -> Calibration | None:
    """The store's calibration for these of its tasks; None where it has none that fits them."""
    places, entry = store.manifest.calibrated_tasks(names), store.manifest.calibration
    tensors = None if places is None else store.load_calibration()
    if places is None or entry is None or tensors is None:
        return None
    linears = early_linears(store.manifest.backbone)
    kinds, tasks = evidence_kinds(len(linears)), len(entry.tasks)
    if not is_calibration(tensors, kinds, tasks):
        return None  # made by a version of this program that had other evidence
    own = {name: tensor.to(torch.float64) for name, tensor in tensors.items()}
    calibration = Calibration(own[MEANS], own[COVARIANCE], own[IMAGES], own[OWNER])
    if WEIGHTS in own:
        calibration = calibration.counting(*(Combination.of_numbers(row, tasks) for row in own[WEIGHTS]))
    if not calibration.is_usable:
        raise StoreError(
            f"{store.files.url}: the numbers of {entry.file} are no calibration: calibrate the store again"
        )
    return calibration.of_tasks(places)


def _task_head(store: Store, task: TaskEntry, device: torch.device) -> TaskHead:
    return TaskHead(task, classification_head(store.load_head(task.name)).to(device))
