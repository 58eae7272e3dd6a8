"""Compares path templates of routes, like ``/users/{id:int}``: does one take another's paths?

All comparisons are cautious: ``False`` also means that the templates cannot be compared, for
example because of a path convertor that the app registered.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_PARAMETER: Final = re.compile(r"\{[a-zA-Z_]\w*(?::([a-zA-Z_]\w*))?\}")
_ONE_SEGMENT: Final = frozenset({"str", "int", "float", "uuid"})
"""The convertors of Starlette whose values are not empty and contain no slash."""


def equal_paths(one: str, other: str) -> bool:
    """Whether two templates differ at most in the names of their parameters."""
    return _shape(one) == _shape(other)


def lies_below(path: str, mount: str) -> bool:
    """Whether every path of the template ``path`` is a path of ``mount``, or lies below one.

    Args:
        path: The template of a route, e.g. ``/billing/{item}/report``.
        mount: The template of a mount without its tail, e.g. ``/billing``; ``""`` for the root.
    """
    inner, outer = path.split("/"), mount.split("/")
    return len(inner) >= len(outer) and all(map(_segment_within, inner, outer))


def _segment_within(inner: str, outer: str) -> bool:
    """Whether every text that the segment ``inner`` matches is matched by ``outer``, too."""
    if _shape(inner) == _shape(outer):
        return True
    parameters = _PARAMETER.findall(inner)
    return (
        _shape(outer) == "{str}"
        and inner != ""
        and _ONE_SEGMENT.issuperset(convertor or "str" for convertor in parameters)
    )


@lru_cache(4096)  # each path of an app is compared with all others
def _shape(template: str) -> str:
    """Return ``template`` without the names of its parameters: ``/users/{int}``."""
    return _PARAMETER.sub(lambda match: f"{{{match[1] or 'str'}}}", template)
