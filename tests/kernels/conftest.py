"""Memory that an operation forgets to write must show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture(autouse=True)
def empty_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills what `new_empty` and `empty_like` return with NaN."""

    def filled(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: make(*args, **kwargs).fill_(float("nan"))

    original: Any = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", filled(original))
    monkeypatch.setattr(torch, "empty_like", filled(torch.empty_like))
