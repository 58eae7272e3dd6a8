"""Pictures of an object and of all that it holds, to compare two upstreams part by part."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from random import Random
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final
from weakref import WeakSet, ref

from pydantic import BaseModel, SecretStr

_OPAQUE: Final = (
    asyncio.AbstractEventLoop,
    asyncio.Future,
    asyncio.Handle,
    asyncio.Lock,
    BuiltinFunctionType,
    ModuleType,
    Random,
    WeakSet,
    logging.Logger,
    datetime,
    ref,
    ssl.SSLContext,
    type,
)
_PLAIN: Final = (str, bytes, int, float, bool, type(None), Path, re.Pattern)


def picture(value: Any, ignored: frozenset[str] = frozenset()) -> Any:
    """Give the attributes of ``value``, of its attributes, and so on.

    Functions appear with what they have captured. An object that holds itself appears there by
    its class alone.

    Args:
        value: Any object.
        ignored: Names of attributes that are left out.
    """
    drawn: dict[int, Any] = {}
    kept: list[Any] = []  # an object that ends would give its id to another one

    def draw(one: Any) -> Any:
        if isinstance(one, _PLAIN):
            return one
        if isinstance(one, SecretStr):
            return one.get_secret_value()
        if isinstance(one, Enum):
            return one.name
        if isinstance(one, _OPAQUE) or callable(getattr(one, "cache_clear", None)):
            return getattr(one, "__qualname__", type(one).__name__)
        if isinstance(one, frozenset | set):
            return sorted(map(str, map(draw, one)))
        if id(one) not in drawn:
            kept.append(one)
            drawn[id(one)] = f"^{type(one).__qualname__}"
            drawn[id(one)] = parts(one)
        return drawn[id(one)]

    def parts(one: Any) -> Any:
        if isinstance(one, list | tuple):
            return [draw(part) for part in one]
        if isinstance(one, Mapping):
            return {str(draw(key)): draw(part) for key, part in one.items()}
        if isinstance(one, MethodType):
            return [one.__func__.__qualname__, draw(one.__self__)]
        if isinstance(one, partial):
            return [draw(one.func), draw(one.args), draw(one.keywords)]
        if isinstance(one, FunctionType):
            cells = [draw(cell.cell_contents) for cell in one.__closure__ or ()]
            return [one.__qualname__, cells]
        return [type(one).__qualname__, *attributes(one)]

    def attributes(one: Any) -> list[Any]:
        if isinstance(one, BaseModel):
            return [(name, draw(getattr(one, name))) for name in type(one).model_fields]
        names = [*vars(one)] if hasattr(one, "__dict__") else []
        for cls in type(one).__mro__:
            slots = vars(cls).get("__slots__", ())
            names += [slots] if isinstance(slots, str) else slots
        found = [name for name in dict.fromkeys(names) if name not in ignored]
        return [(name, draw(getattr(one, name))) for name in sorted(found) if hasattr(one, name)]

    return draw(value)


def first_difference(
    one: Any, other: Any, at: str = "", seen: set[tuple[int, int]] | None = None
) -> str | None:
    """Say where two pictures differ first, ``None`` if they do not."""
    seen = set() if seen is None else seen
    if (id(one), id(other)) in seen:
        return None
    seen.add((id(one), id(other)))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{at}: {len(one)} parts, {len(other)} parts"
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            name = left[0] if isinstance(left, tuple) and isinstance(left[0], str) else number
            found = first_difference(left, right, f"{at}.{name}", seen)
            if found:
                return found
        return None
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            found = first_difference(one.get(key), other.get(key), f"{at}[{key}]", seen)
            if found:
                return found
        return None
    return None if one == other else f"{at}: {one!r:.200} is not {other!r:.200}"
