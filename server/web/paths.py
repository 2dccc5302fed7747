"""Parts of paths beside the framework's.

router.post(f"/models/{part_before_colon('model')}:predict")
"""

from __future__ import annotations

from starlette.convertors import StringConvertor, register_url_convertor


class PartBeforeColon(StringConvertor):
    """A part of a path without a colon, behind which a verb may stand."""

    regex = "[^/:]+"


register_url_convertor("before_colon", PartBeforeColon())


def part_before_colon(name: str) -> str:
    """Returns the parameter of a path that no colon is in: names of tasks have none."""
    return f"{{{name}:before_colon}}"
