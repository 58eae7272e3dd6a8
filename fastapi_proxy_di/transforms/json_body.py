"""``JsonBody``: the annotation of a parameter that gets the JSON value of a body."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

__all__ = ["JsonBody"]


class _JsonBodyMark:
    """Tells `JsonBody` from other annotations of any type."""

    def __repr__(self) -> str:
        return "JsonBody"


_MARK: Final = _JsonBodyMark()

JsonBody: TypeAlias = Annotated[Any, _MARK]
"""The JSON value of a body: a dict, a list, a string, a number, a boolean or ``None``."""
