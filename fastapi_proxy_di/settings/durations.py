"""Reads durations in settings: seconds as a number, or text with a unit."""

import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, WithJsonSchema

from fastapi_proxy_di.settings.text import OrNone

__all__ = [
    "Duration",
    "DurationOrZero",
    "OpenDurationOrZero",
    "OpenOptionalDuration",
    "OptionalDuration",
    "parse_duration",
]

# Longer durations overflow the timers of event loops, and are probably typing errors.
MAX_SECONDS: Final = 366 * 24 * 3600.0
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TEXT: Final = re.compile(r"(-?\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d)?", re.ASCII | re.IGNORECASE)
_RIGHT: Final = "give seconds, or one number with one unit such as '500ms', '1.5s', '2m' or '1h'"


def parse_duration(value: object) -> float:
    """Read a duration.

    Args:
        value: Seconds as number, text with or without unit (ms, s, m, h, d), or a
            ``timedelta``.

    Returns:
        Seconds, finite, not negative, at most 366 days.

    Raises:
        ValueError: ``value`` is not a duration.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _TEXT.fullmatch(value.strip())):
        seconds = float(match[1]) * _UNITS[(match[2] or "s").lower()]
    else:
        raise ValueError(f"is not a duration; {_RIGHT}")
    if not math.isfinite(seconds) or not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"must be between 0 and 366 days; {_RIGHT}")
    return seconds


def _positive(value: object) -> float:
    seconds = parse_duration(value)
    if seconds == 0:
        raise ValueError(f"must be more than 0; {_RIGHT}")
    return seconds


def _json_schema(**number: Any) -> WithJsonSchema:
    text = {"type": "string", "pattern": r"^(\d+(\.\d*)?|\.\d+)\s*(ms|s|m|h|d)?$"}
    return WithJsonSchema({"anyOf": [{"type": "number", **number}, text]})


if TYPE_CHECKING:

    class Duration:
        """A field that accepts seconds, text and ``timedelta``, and gives seconds."""

        def __get__(self, instance: object, owner: type | None = None) -> float: ...

        def __set__(self, instance: object, value: float | str | timedelta) -> None: ...

    class OptionalDuration:
        """A field that accepts what ``Duration`` does and ``None``; gives seconds or ``None``."""

        def __get__(self, instance: object, owner: type | None = None) -> float | None: ...

        def __set__(self, instance: object, value: float | str | timedelta | None) -> None: ...

    DurationOrZero: TypeAlias = Duration
    OpenDurationOrZero: TypeAlias = float | Any
    OpenOptionalDuration: TypeAlias = float | Any | None

else:
    Duration = Annotated[float, BeforeValidator(_positive), _json_schema(exclusiveMinimum=0)]
    """Seconds, more than 0."""

    DurationOrZero = Annotated[float, BeforeValidator(parse_duration), _json_schema(minimum=0)]
    """Seconds, 0 allowed."""

    OptionalDuration = Annotated[Duration | None, OrNone]
    """Seconds, more than 0, or none."""

    # Fields of an upstream itself: a declared class may give them another type (SettingsModel).
    OpenDurationOrZero = DurationOrZero
    OpenOptionalDuration = OptionalDuration
