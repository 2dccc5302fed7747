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
        def fill(*args: Any, **kwargs: Any) -> Tensor:
            made = make(*args, **kwargs)
            return made.fill_(float("nan")) if made.is_floating_point() else made

        return fill

    original: Any = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", filled(original))
    monkeypatch.setattr(torch, "empty_like", filled(torch.empty_like))
