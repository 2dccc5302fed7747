"""What one piece of work may take, and why one failed that took more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Why a worker process was replaced: its time, its memory, or because it ended or lied.
Reason = Literal["cpu", "wall", "memory", "crash"]
REASONS: tuple[Reason, ...] = ("cpu", "wall", "memory", "crash")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Holds what a job may take; the kernel, and for the wall time the parent, end what takes more."""

    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int  # of address space
    result_bytes: int


@dataclass(frozen=True, slots=True)
class Belonging:
    """What a process keeps from job to job, such as a tokenizer; the first job that needs it brings it."""

    name: str  # alike for what is alike
    function: str  # which keeps it, as "module:function"; its attribute `keeps` is True
    content: bytes
    options: bytes
    bounds: Bounds  # of the job that keeps it


class SandboxError(Exception):
    """A job has no result."""


class RefusedError(SandboxError):
    """The work raised an exception of the name `kind`, with this text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class ExceededError(SandboxError):
    """The job took more than it may, or crashed; `reason` says which."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the worker process was replaced: {reason}")
        self.reason = reason


class MemoryShortError(SandboxError):
    """The machine, or a limit of the operator's, has not the memory that the job may have."""
