"""What a build decides where the options leave it open."""

from __future__ import annotations

import pytest

from mass_serve.backbone.architecture import Token
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.plan import _router
from tests.encoders import ENCODERS


@pytest.mark.parametrize(("name", "token"), [("vit", "class"), ("no class token", "mean")])
def test_the_router_takes_the_class_token_where_there_is_one(name: str, token: Token) -> None:
    assert _router(ENCODERS[name], BuildOptions()).token == token
    assert _router(ENCODERS[name], BuildOptions(router_token="mean")).token == "mean"


def test_a_router_cannot_take_a_class_token_that_is_not_there() -> None:
    with pytest.raises(StoreError, match="the router token must be mean: there is no class token"):
        _router(ENCODERS["no class token"], BuildOptions(router_token="class"))
