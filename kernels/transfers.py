"""Between the host and a device, with as few copies and waits as there can be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_

import torch
from torch import Tensor


def uploaded(tensor: Tensor, device: torch.device) -> Tensor:
    """The host's tensor on a device; on a GPU in order with the kernels, and the host does not wait."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def uploaded_stack(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Tensors of the host, stacked on a device: `uploaded(torch.stack(tensors), device)`.

    For a GPU they are stacked where they are sent from, and not copied there once more.
    """
    if device.type != "cuda":
        return torch.stack(list(tensors)).to(device)
    first = tensors[0]
    room = torch.empty(len(tensors), *first.shape, dtype=first.dtype, pin_memory=True)
    return torch.stack(list(tensors), out=room).to(device, non_blocking=True)


class UploadedStacks:
    """Stacks of tensors of the host on a device; a GPU may be sent them before they are asked for.

        uploads.send_ahead([tensors])  # while kernels run
        uploads.stack(tensors)         # has been copied beside them

    What is sent ahead is copied on a stream of its own, from pinned memory that PyTorch hands out anew only
    when that copy is over. Whoever asks for it has the kernels wait for the copy, and not the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device=device)  # type: ignore[no-untyped-call]
        self._ahead: list[tuple[list[Tensor], Tensor, torch.cuda.Event]] = []

    def send_ahead(self, stacks: Iterable[Sequence[Tensor]]) -> None:
        """Begins to copy stacks in place of those that were sent ahead before; nothing on a CPU.

        Where the device has no memory for all of them, none is ahead: they are sent when they are asked for.
        """
        if self._stream is None:
            return
        self._ahead = []
        try:
            for tensors in stacks:
                with torch.cuda.stream(self._stream):
                    stack = uploaded_stack(tensors, self._device)
                    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                    copied.record(self._stream)
                self._ahead.append((list(tensors), stack, copied))
        except torch.OutOfMemoryError:
            self._ahead = []

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors stacked on the device: those that were sent ahead, if they are the same, or sent now."""
        for place, (sent, stack, copied) in enumerate(self._ahead):
            if len(sent) == len(tensors) and all(map(is_, sent, tensors)):
                del self._ahead[place]
                calling = torch.cuda.current_stream(self._device)
                calling.wait_event(copied)
                stack.record_stream(calling)  # its memory is another's only after what is launched from here
                return stack
        return uploaded_stack(tensors, self._device)


def pinned_zeros(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros [length] on the host, from which a copy to that device does not keep the host waiting."""
    return torch.zeros(length, dtype=dtype, pin_memory=device.type == "cuda")


def downloaded(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one device on the CPU, in float32; from a GPU in one copy, which the host waits for once."""
    if tensors[0].device.type == "cpu":
        return [tensor.float() for tensor in tensors]
    together = torch.cat([tensor.float().flatten() for tensor in tensors]).cpu()
    parts = together.split([tensor.numel() for tensor in tensors])  # type: ignore[no-untyped-call]
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def gathered_rows(x: Tensor, parts: Sequence[Sequence[int]]) -> list[Tensor]:
    """`x[rows]` for each of several lists of rows, of which a device is told in one copy."""
    together = selected_rows(x, [row for rows in parts for row in rows])
    return list(together.split([len(rows) for rows in parts]))  # type: ignore[no-untyped-call]


def selected_rows(x: Tensor, rows: Sequence[int]) -> Tensor:
    """`x[rows]`; x itself where those are all of its rows in their order."""
    if list(rows) == list(range(len(x))):
        return x
    return x[uploaded(torch.tensor(rows, dtype=torch.int64), x.device)]
