"""What energies drawn inputs have in the tasks' subspaces: measured once, and kept in the manifest.

To measure it takes a first pass over drawn inputs, most of the time in which a store is loaded. What is kept
is measured in float32, with all tasks of the store, and serves in every dtype. It counts as long as it says
that it is of the weights, the linears and the inputs that it would be measured with now. Else, and on a
merged base, which all tasks have a part in, it is measured when a store is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from mass_serve.backbone import Batch
from mass_serve.backbone.architecture import Token
from mass_serve.engine.drawn_inputs import NOISE_INPUTS, drawn_inputs
from mass_serve.engine.loaded_store import LoadedStore, energy_linears
from mass_serve.model_store.format.entries import DrawnEnergiesSpec
from mass_serve.router import DrawnEnergies

FEW = 16  # drawn inputs, half of them noise
# Of the way in which energies of drawn inputs are measured: another number where numbers become others.
VERSION = 2
# Of a number that is kept: as many as tell every float32 from the next.
DIGITS = 9


def late_token(loaded: LoadedStore) -> Token:
    """The token by which late energies are measured.

    The class token has much of its energy along few directions, whatever the input: no profile.
    """
    return "mean" if any(loaded.adapters) else loaded.router.late_token or loaded.router.token


def inputs_to_measure_from(loaded: LoadedStore) -> Batch:
    """The drawn inputs whose energies others are measured from.

    What the tasks explain of drawn inputs a few tell, their profiles all.
    """
    if any(loaded.adapters):
        return drawn_inputs(loaded)
    return drawn_inputs(loaded, FEW // 2)[NOISE_INPUTS - FEW // 2 :]


def kept_energies(loaded: LoadedStore) -> DrawnEnergies | None:
    """What the manifest keeps of the routed tasks; None where one has nothing that counts."""
    linears = len(energy_linears(loaded.architecture))
    profiles = linears if any(loaded.adapters) else 0
    zeros, columns = (0.0,) * linears, []
    for task, head in enumerate(loaded.routed_heads):
        spec = head.entry.drawn_energies
        if loaded.created[task]:  # it has no directions, and nothing is measured from it
            columns.append((zeros, zeros))
        elif (
            spec is None
            or spec.of != _identity(loaded, task)
            or (len(spec.shares), len(spec.profiles)) != (linears, profiles)
        ):
            return None
        else:
            columns.append((spec.shares, spec.profiles or zeros))
    return DrawnEnergies(*torch.tensor(columns).movedim(0, -1))


def energies_to_keep(loaded: LoadedStore, energies: DrawnEnergies) -> Mapping[str, DrawnEnergiesSpec]:
    """What the manifest is to keep of each routed task with directions, whose numbers do not overflow."""
    numbers = torch.stack([energies.shares, energies.profiles])
    return {
        head.entry.name: DrawnEnergiesSpec(
            of=_identity(loaded, task),
            shares=_rounded(numbers[0, :, task]),
            profiles=_rounded(numbers[1, :, task]) if any(loaded.adapters) else (),
        )
        for task, head in enumerate(loaded.routed_heads)
        if not loaded.created[task] and bool(numbers[:, :, task].isfinite().all())
    }


def _rounded(numbers: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{number:.{DIGITS}g}") for number in numbers.tolist())


def _identity(loaded: LoadedStore, task: int) -> str:
    """The SHA-256 of all that the energies of a task depend on."""
    _, experts = loaded.experts[task]
    share = loaded.router.late_mlp_share
    of = (
        VERSION,
        loaded.router.first_pass,
        loaded.encoder,
        loaded.pretrained_sha256,
        experts,
        energy_linears(loaded.architecture),
        late_token(loaded),
        any(loaded.adapters),
        *(() if share == 1 else (share,)),
    )
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
