"""What is measured of a store when it is made, without data, and kept in its manifest.

    build(pretrained, tasks, "my-store", measure=measured)

Prices of early exits are those of `engine.exits`, energies of drawn inputs those of `engine.drawn_energies`.
For the latter the router's sides of all tasks are in memory; else one task is there at a time. The late token
is the one by which late energies are measured. Where what the tasks explain of drawn inputs hardly varies
with the input, as with the class token of a text, a token tells little of inputs that are of a task, too: the
one that varies more is taken. Where there is an adapter it is the mean, which profiles need, whatever the
manifest says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from mass_serve.backbone import Probe, passes_for
from mass_serve.backbone.architecture import Token
from mass_serve.engine.drawn_energies import energies_to_keep, kept_energies
from mass_serve.engine.drawn_inputs import drawn_inputs
from mass_serve.engine.evidence_search import EvidenceSearch
from mass_serve.engine.exits import measured_prices
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_opened, runs_on_merged_base
from mass_serve.model_store.format.entries import DrawnEnergiesSpec
from mass_serve.model_store.measured import Measured
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.store import Store
from mass_serve.router import EnergyEvidence, LinearSubspaces, ModeName, early_stop

MODE: ModeName = "fast"  # any whose first pass has the weights that a mode which resumes has
SEARCHING: ModeName = "balanced"  # any that measures energies and needs no prices
DIGITS = 6  # of a price that are kept


def measured(store: Store, progress: Progress = silent) -> Measured:
    """All that is measured of a new store. Raises StoreError for one that cannot be loaded."""
    prices, subspaces, last = dict[str, float](), list[dict[str, LinearSubspaces]](), None
    for name, loaded in _one_by_one(store, [task.name for task in store.manifest.routed_tasks], progress):
        prices |= _price(name, loaded)
        if not any(loaded.adapters):
            linears = loaded.architecture.late_linears(early_stop(loaded.architecture.depth))
            subspaces.append(loaded.subspaces(linears))
        last = loaded
    token = None
    if last is not None and len(subspaces) == len(store.manifest.routed_tasks):
        token = _late_token(last, subspaces)
    return Measured(prices, token, _drawn_energies(store, token, last))


def unknown_measures(store: Store, progress: Progress = silent) -> Measured:
    """What the manifest of a store has not, where a task is new or the store is an old one."""
    wanted = [task.name for task in store.manifest.routed_tasks if task.exit_price is None]
    prices, last = dict[str, float](), None
    for name, loaded in _one_by_one(store, wanted, progress):
        prices |= _price(name, loaded)
        last = loaded
    return Measured(prices, drawn_energies=_drawn_energies(store, None, last))


def _one_by_one(store: Store, names: list[str], progress: Progress) -> Iterator[tuple[str, LoadedStore]]:
    """Yields the store with one task in memory at a time; nothing where all share a merged base."""
    if runs_on_merged_base(store.manifest.router, MODE):
        return
    loaded = None
    for done, name in enumerate(names):
        progress("measuring tasks", done, len(names))
        others = [task.name for task in store.manifest.tasks if task.name != name]
        device = torch.device("cpu")
        loaded = load_opened(store, device, torch.float32, MODE, others, loaded, calibrated=False)
        yield name, loaded
    progress("measuring tasks", len(names), len(names))


def _drawn_energies(
    store: Store, token: Token | None, previous: LoadedStore | None
) -> Mapping[str, DrawnEnergiesSpec]:
    """The energies to keep, of all tasks; nothing where the manifest has them. `token`: the new late one."""
    router = store.manifest.router
    if runs_on_merged_base(router, MODE) or not store.manifest.routed_tasks:
        return {}
    device = torch.device("cpu")
    loaded = load_opened(
        store, device, torch.float32, SEARCHING, (), previous, calibrated=False, resident_task_bytes=0
    )
    loaded = replace(loaded, router=router.model_copy(update={"late_token": token or router.late_token}))
    if kept_energies(loaded) is not None:
        return {}
    search = EvidenceSearch(loaded, passes_for(loaded.bank, loaded.first_pass, 1))
    return energies_to_keep(loaded, search.drawn_energies)


def _price(name: str, loaded: LoadedStore) -> dict[str, float]:
    passes = passes_for(loaded.bank, loaded.first_pass, 1)
    price = float(measured_prices(loaded, passes, drawn_inputs(loaded), [0]))
    # An embedding of noise may be beyond float32, of a task that serves well: nothing is known of it.
    return {name: round(price, DIGITS)} if math.isfinite(price) else {}


def _late_token(loaded: LoadedStore, subspaces: list[dict[str, LinearSubspaces]]) -> Token | None:
    """The token whose late energies vary most; None where there is no choice. `subspaces` are each task's."""
    if len(subspaces) < 2 or len(loaded.architecture.tokens) < 2 or not subspaces[0]:
        return None
    joined = {linear: LinearSubspaces.joined([own[linear] for own in subspaces]) for linear in subspaces[0]}
    variations = late_variations(loaded, joined)
    return max(variations, key=variations.__getitem__)


@torch.inference_mode()
def late_variations(loaded: LoadedStore, subspaces: Mapping[str, LinearSubspaces]) -> dict[Token, float]:
    """How far what whole fine-tunings explain varies over drawn inputs, by the token of late energies.

    `subspaces` are those of all of them at the late linears.
    """
    tasks = len(next(iter(subspaces.values())).ranks)
    evidence = EnergyEvidence(list(subspaces.values()), torch.zeros(tasks, dtype=torch.bool))
    bases = {linear: one.directions for linear, one in subspaces.items()}
    passes, drawn = passes_for(loaded.bank, loaded.first_pass, 1), drawn_inputs(loaded)
    return {
        token: evidence.variation(passes.first(drawn, probe=Probe(bases, token=token)).energies.cpu())
        for token in loaded.architecture.tokens
    }
