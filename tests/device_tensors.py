"""Tensors that say they are on `cuda:0` and hold one on the CPU, where every operation on them runs.

What goes between host and device, and what the host would have to wait for, is told to a `Transfers`. A
device must be named with its number, and all runs in inference mode: without, PyTorch looks for the device
before it asks anybody else.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

aten = torch.ops.aten
THERE = torch.device("cuda", 0)
# Methods that look for the device before they are dispatched; the result is on the same side.
OF_ONE_SIDE = {
    Tensor.contiguous,
    Tensor.float,
    Tensor.double,
    Tensor.half,
    Tensor.bfloat16,
    Tensor.int,
    Tensor.long,
    Tensor.bool,
}
READING = {Tensor.__int__, Tensor.__float__, Tensor.__bool__, Tensor.item, Tensor.tolist, Tensor.numpy}
# Operations whose result has a size that the host has to wait for.
OF_UNKNOWN_SIZE = {aten.nonzero.default, aten.masked_select.default, aten._unique2.default}
PINNING = {aten.pin_memory.default, aten._pin_memory.default, aten.is_pinned.default}
CONVERSIONS = {aten._to_copy.default, *(getattr(aten.to, name) for name in aten.to.overloads())}  # type: ignore[no-untyped-call]


class Transfers(Protocol):
    """Who is told of transfers."""

    def copied(self, *, to_device: bool, waits: bool) -> None:
        """Something was copied to or from the device, and the host waited for that or not."""

    def waits(self, what: str) -> None:
        """The host waits for the device."""


class DeviceTensor(Tensor):
    """A tensor of the device."""

    held: Tensor
    transfers: ClassVar[Transfers]
    pinned: ClassVar[list[Tensor]] = []  # kept, so that no other tensor gets their memory

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=THERE,
        )
        made.held = held
        return made

    def record_stream(self, _: Any) -> None:
        """Memory is never another tensor's here."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = kwargs or {}
        if func is Tensor.data_ptr:
            return args[0].held.data_ptr()
        if func is Tensor.__getitem__:
            return _indexed(*args)
        if func is Tensor.__setitem__:
            return _set(*args)
        if func in READING:
            cls.transfers.copied(to_device=False, waits=True)
            return func(args[0].held, *args[1:])
        if func is Tensor.copy_:
            return operate(aten.copy_.default, args, own)
        if func is Tensor.cpu:
            return operate(aten.to.device, (args[0], torch.device("cpu"), args[0].dtype), {})
        if func in OF_ONE_SIDE:
            result = func(*map(held_of, args), **{name: held_of(value) for name, value in own.items()})
            return args[0] if result is args[0].held else DeviceTensor(result)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **own)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return operate(func, args, kwargs or {})


class MakingOnDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets the thread that enters it make tensors on the device, and copy to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = kwargs or {}
        if "device" in own or "pin_memory" in own or func in CONVERSIONS or func in PINNING:
            return operate(func, args, own)
        return func(*args, **own)


def operate(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the CPU; its result is on the device where CUDA's would be."""
    if func in CONVERSIONS:
        return _converted(func, args, kwargs)
    if func in PINNING:
        return _is_pinned(args[0]) if func is aten.is_pinned.default else _pinned(args[0])
    tensors: list[Tensor] = []
    tree_map(lambda part: tensors.append(part) if isinstance(part, Tensor) else None, (args, kwargs))
    was_there = any(isinstance(one, DeviceTensor) for one in tensors)
    own = dict(kwargs)
    device = own.get("device")
    is_there = was_there if device is None else torch.device(device).type == THERE.type
    if device is not None:
        own["device"] = "cpu"
    if func is aten.copy_.default and isinstance(args[0], DeviceTensor) != isinstance(args[1], DeviceTensor):
        _copied(args[1], args[0], non_blocking=bool(_argument(func, args, kwargs, "non_blocking")))
    elif was_there and func in OF_UNKNOWN_SIZE:
        DeviceTensor.transfers.waits(str(func))
    if own.pop("pin_memory", False):
        return _pinned(func(*args, **own))
    result = func(*tree_map(held_of, args), **tree_map(held_of, own))
    for one in tensors:
        if held_of(one) is result:  # written in place
            return one
    if not is_there:
        return result
    return tree_map(lambda part: DeviceTensor(part) if isinstance(part, Tensor) else part, result)


def held_of(part: Any) -> Any:
    """What a device tensor holds; anything else is itself."""
    return part.held if isinstance(part, DeviceTensor) else part


def _indexed(tensor: Tensor, index: Any) -> Tensor:
    """`tensor[index]`, which copies what the host has of the index, and waits for a mask of the device."""
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        of_host = isinstance(part, list) or (type(part) is Tensor and part.dim() > 0)
        if of_host and isinstance(tensor, DeviceTensor):
            DeviceTensor.transfers.copied(to_device=True, waits=True)
        if isinstance(part, DeviceTensor) and part.dtype == torch.bool:
            DeviceTensor.transfers.waits("a mask")
    chosen: Tensor = held_of(tensor)[tuple(map(held_of, parts))]
    return DeviceTensor(chosen) if isinstance(tensor, DeviceTensor) else chosen


def _set(tensor: Tensor, index: Any, value: Any) -> None:
    target = _indexed(tensor, index)
    if isinstance(value, Tensor) and value.device != target.device:
        DeviceTensor.transfers.copied(to_device=isinstance(tensor, DeviceTensor), waits=True)
    held_of(tensor)[tree_map(held_of, index)] = held_of(value)


def _converted(func: Any, args: Any, kwargs: Any) -> Tensor:
    """The tensor in another dtype or on the other side."""
    tensor, like = args[0], _argument(func, args, kwargs, "other")
    device = _argument(func, args, kwargs, "device") if like is None else like.device
    dtype = _argument(func, args, kwargs, "dtype") if like is None else like.dtype
    is_there = isinstance(tensor, DeviceTensor)
    goes_there = is_there if device is None else torch.device(device).type == THERE.type
    held: Tensor = held_of(tensor).to(
        dtype or tensor.dtype, copy=bool(_argument(func, args, kwargs, "copy")) or is_there != goes_there
    )
    if held is held_of(tensor):
        return tensor  # type: ignore[no-any-return]
    made = DeviceTensor(held) if goes_there else held
    if is_there != goes_there:
        _copied(tensor, made, non_blocking=bool(_argument(func, args, kwargs, "non_blocking")))
    return made


def _copied(source: Tensor, target: Tensor, *, non_blocking: bool) -> None:
    """Tells of a copy: the host waits unless its own side is pinned and it said not to."""
    to_device = isinstance(target, DeviceTensor)
    host = source if to_device else target
    DeviceTensor.transfers.copied(to_device=to_device, waits=not (non_blocking and _is_pinned(host)))


def _pinned(tensor: Tensor) -> Tensor:
    DeviceTensor.pinned.append(tensor.clone())
    return DeviceTensor.pinned[-1]


def _is_pinned(tensor: Tensor) -> bool:
    place = tensor.untyped_storage().data_ptr()
    return any(one.untyped_storage().data_ptr() == place for one in DeviceTensor.pinned)


def _argument(func: Any, args: Any, kwargs: Any, name: str) -> Any:
    """The argument of that name; None where there is none."""
    names = [one.name for one in func._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}.get(name)
