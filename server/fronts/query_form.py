"""Queries as bytes, for the process that has the device: a head in JSON, and the tensors behind it.

body = packed(queries, handle=3)  # in a front end
handle, queries = unpacked(bytearray(b"".join(body)))  # where the device is

Whoever reads them believes nothing: a front end speaks with the whole world.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from mass_serve.engine import AnyQuery, ModeName, Pool, Priors, Query, TextQuery
from mass_serve.server.fronts.frames import Part

LENGTH = struct.Struct("<Q")
# Where a tensor begins: at a multiple of the largest number's size.
ALIGNED = 16
DTYPES = {"pixels": {"uint8": torch.uint8, "float32": torch.float32}, "words": {"int64": torch.int64}}
MODES = get_args(ModeName)


def packed(queries: Sequence[AnyQuery], handle: int) -> list[Part]:
    """Returns the parts of a message that asks the engine of a handle."""
    contents = {id(_content(query)): _content(query).contiguous() for query in queries}
    places = {content: place for place, content in enumerate(contents)}
    pools: dict[int, int] = {}
    asked = [_asked(query, places[id(_content(query))], pools) for query in queries]
    shapes = [[str(one.dtype).removeprefix("torch."), list(one.shape)] for one in contents.values()]
    head = json.dumps({"handle": handle, "tensors": shapes, "queries": asked}).encode()
    parts: list[Part] = [LENGTH.pack(len(head)), head, _padding(LENGTH.size + len(head))]
    for tensor in contents.values():
        parts += [tensor.numpy().data.cast("B"), _padding(tensor.nbytes)]
    return parts


def unpacked(body: bytearray) -> tuple[int, list[AnyQuery]]:
    """Returns the handle and the queries, whose tensors lie in `body`. Raises ValueError for other bytes."""
    try:
        (length,) = LENGTH.unpack_from(body)
        head = json.loads(body[LENGTH.size : LENGTH.size + length])
        place = _aligned(LENGTH.size + length)
        tensors = []
        for dtype, shape in head["tensors"]:
            tensors.append(_tensor(body, place, dtype, shape))
            place += _aligned(tensors[-1].nbytes)
        pools: dict[int, Pool] = {}
        return int(head["handle"]), [_query(asked, tensors, pools) for asked in head["queries"]]
    except (
        struct.error,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
        ValueError,
    ) as error:
        raise ValueError("the queries cannot be read") from error


def _content(query: AnyQuery) -> Tensor:
    return query.pixels if isinstance(query, Query) else query.words


def _asked(query: AnyQuery, place: int, pools: dict[int, int]) -> dict[str, object]:
    """Returns all but the tensor, without what is not said. Evidence of a stream has no form here."""
    asked: dict[str, object] = {"pixels" if isinstance(query, Query) else "words": place}
    if query.candidates is not None:
        asked["candidates"] = query.candidates
    if query.pool is not None:
        assert query.pool.remembered is None
        asked["pool"] = pools.setdefault(id(query.pool), len(pools))
    if query.embeds:
        asked["embeds"] = True
    if query.mode is not None:
        asked["mode"] = query.mode
    if query.priors is not None:
        asked["priors"] = query.priors.shares
    return asked


def _query(asked: Mapping[str, Any], tensors: Sequence[Tensor], pools: dict[int, Pool]) -> AnyQuery:
    mode = asked.get("mode")
    if mode is not None and mode not in MODES:
        raise ValueError("there is no such mode")
    pool, shares = asked.get("pool"), asked.get("priors")
    given: dict[str, Any] = {
        "candidates": tuple(map(str, asked["candidates"])) if "candidates" in asked else None,
        "pool": None if pool is None else pools.setdefault(int(pool), Pool()),
        "embeds": bool(asked.get("embeds")),
        "mode": mode,
        "priors": None if shares is None else Priors(tuple((str(name), float(one)) for name, one in shares)),
    }
    if "pixels" in asked:
        return Query(_of_kind(tensors[asked["pixels"]], "pixels"), **given)
    return TextQuery(_of_kind(tensors[asked["words"]], "words"), **given)


def _of_kind(tensor: Tensor, kind: str) -> Tensor:
    if tensor.dtype not in DTYPES[kind].values():
        raise ValueError(f"{kind} are not of {tensor.dtype}")
    return tensor


def _tensor(body: bytearray, place: int, dtype: str, shape: Sequence[int]) -> Tensor:
    found = (DTYPES["pixels"] | DTYPES["words"])[dtype]
    count = 1
    for size in shape:
        if not isinstance(size, int) or size < 1:
            raise ValueError("a tensor has no such size")
        count *= size
    # It says itself where the bytes do not suffice.
    return torch.frombuffer(body, dtype=found, count=count, offset=place).view(*shape)


def _aligned(length: int) -> int:
    return -(-length // ALIGNED) * ALIGNED


def _padding(length: int) -> bytes:
    return bytes(_aligned(length) - length)
