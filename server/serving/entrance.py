"""Whose request it is, by the keys that come with it, and what wrong ones cost, whatever the transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mass_serve.server.errors import WrongKeyError
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service

# Of `keys.Access`: for inference, or for admins.
Requirement = Callable[[Sequence[str]], Caller | None]


async def let_in(
    service: Service, context: RequestContext, keys: Sequence[str], require: Requirement
) -> None:
    """Makes the holder of the key the request's caller, who is else whoever is at the address.

    Raises UnauthorizedError without the key that is required, after a while where a wrong one was tried.
    """
    try:
        context.caller = require(keys) or context.caller
    except WrongKeyError:
        await service.wrong_keys.slow_down(context.caller)
        raise
