"""An encoder's parameters by name: plain to whoever reads them, in whichever form products read them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Architecture, AttentionPooling, BlockNames, weight_of
from mass_serve.kernels import QuantisedWeight, ReorderedWeight, Table, Weight
from mass_serve.kernels.reordered import gains_by_reordering

Parameters = Mapping[str, Tensor]


class FormedParameters(Parameters):
    """Parameters of which some lie in memory in a form that products read (see `kernels.weights`).

    Read by name they are plain tensors, such a one in memory of its own and as exact as its form is: that is
    for merging and measuring. Products read `forms_of` them.
    """

    def __init__(self, forms: Mapping[str, Weight]) -> None:
        self.forms = forms

    def __getitem__(self, name: str) -> Tensor:
        form = self.forms[name]
        return form if isinstance(form, Tensor) else form.widened()

    def __iter__(self) -> Iterator[str]:
        return iter(self.forms)

    def __len__(self) -> int:
        return len(self.forms)


def quantised(
    parameters: Iterable[tuple[str, Tensor]], architecture: Architecture, dtype: torch.dtype
) -> FormedParameters:
    """The parameters with linears and tables of words in whole numbers of 8 bits, all else in `dtype`.

    Patches are embedded in `dtype`: that matrix is small, and what it rounds away of pixels is gone for good.
    """
    embedding = set(map(weight_of, architecture.embedding.linears))
    linears = set(map(weight_of, architecture.linears)) - embedding

    def form(name: str, own: Tensor) -> Weight:
        if name in linears:
            return QuantisedWeight.of(own, dtype).ordered(_read_apart(name, architecture))
        if name not in embedding:
            return own.to(dtype)
        if architecture.reads_text:
            return QuantisedWeight.of(own, dtype)
        placed = own.to(dtype)
        return ReorderedWeight.of(placed) if gains_by_reordering(own.device, dtype) else placed

    return FormedParameters({name: form(name, own) for name, own in parameters})


def with_quantised_linears(parameters: Parameters, architecture: Architecture) -> FormedParameters:
    """The parameters with the linears of blocks and pooling in whole numbers of 8 bits.

    All else, and what is quantised already, is the same in memory.
    """
    forms = dict(forms_of(parameters))
    for name in map(weight_of, architecture.linears[len(architecture.embedding.linears) :]):
        if name in forms and not isinstance(forms[name], QuantisedWeight):
            own = parameters[name]
            forms[name] = QuantisedWeight.of(own, own.dtype).ordered(_read_apart(name, architecture))
    return FormedParameters(forms)


def reordered(
    parameters: Iterable[tuple[str, Tensor]], architecture: Architecture, dtype: torch.dtype
) -> FormedParameters:
    """The parameters in `dtype`, weights of linears but no tables of words in the order of the products."""
    weights = set(map(weight_of, architecture.linears))
    if architecture.reads_text:
        weights -= set(map(weight_of, architecture.embedding.linears))
    placed = ((name, own.to(dtype)) for name, own in parameters)
    return FormedParameters(
        {
            name: ReorderedWeight.of(own, _read_apart(name, architecture)) if name in weights else own
            for name, own in placed
        }
    )


def _read_apart(name: str, architecture: Architecture) -> tuple[slice, ...]:
    """The output rows of a linear's weight that most passes multiply without the others.

    The last block has a query for the class token alone, where that is all that is pooled, and keys and
    values of all tokens; pooling by attention has a query for its probe alone.
    """
    pooling = architecture.pooling
    if isinstance(pooling, AttentionPooling):
        qkv = pooling.qkv
    elif pooling.needs_all_tokens:
        return ()
    else:
        qkv = BlockNames(architecture.depth - 1).qkv
    if name != weight_of(qkv):
        return ()
    width = architecture.width
    return slice(0, width), slice(width, 3 * width)


def table_of(forms: Mapping[str, Weight], name: str) -> Table:
    """The table of words `name`, which is never reordered."""
    table = forms[weight_of(name)]
    assert not isinstance(table, ReorderedWeight)
    return table


def forms_of(parameters: Parameters) -> Mapping[str, Weight]:
    """The parameters as they lie in memory."""
    return parameters.forms if isinstance(parameters, FormedParameters) else parameters


def named(parameters: Parameters, names: Collection[str]) -> Parameters:
    """Those of the parameters that have these names, the same ones in memory."""
    found = {name: form for name, form in forms_of(parameters).items() if name in names}
    return FormedParameters(found)


def nbytes_of(parameters: Parameters) -> int:
    """The memory of the parameters."""
    return sum(form.nbytes for form in forms_of(parameters).values())
