"""How long records are kept. Pure: the time is an argument, in milliseconds of the store.

The version of a record is near the time at which it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["has_ended", "is_old"]

_LASTING: Final = frozenset({"drain", "weight"})
"""Kinds of records that hold until they are changed."""

KEPT_MS: Final = 30 * 86400000
"""How long a drain or a weight is kept of an address that no process has. A process that has it
writes it anew after half of the time."""

UNDRAINED_MS: Final = 86400000
"""How long it is kept that an address is not drained, so that no process offers the drain again."""

ENDED_MS: Final = 300000
"""How long after its end an ejection is removed, so that slower clocks do not bring it back."""


def has_ended(field: str, version: int, body: Mapping[str, Any], now: int) -> bool:
    """Tell whether a record is to be removed."""
    kind = field.partition(":")[0]
    if kind == "ejection":
        return bool(body.get("until", 0) < now - ENDED_MS)
    kept = KEPT_MS if body.get("on", True) else UNDRAINED_MS
    return kind in _LASTING and version < now - kept


def is_old(field: str, version: int, body: Mapping[str, Any], now: int) -> bool:
    """Tell whether a process that has the address writes the record anew, so that it is kept."""
    kind = field.partition(":")[0]
    return kind in _LASTING and bool(body.get("on", True)) and version < now - KEPT_MS / 2
