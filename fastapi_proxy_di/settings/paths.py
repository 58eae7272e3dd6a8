"""Paths in settings: of probes, and of transforms."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from fastapi_proxy_di.settings.text import OrNone
from fastapi_proxy_di.wire.targets import climbs

__all__ = ["PLACEHOLDER", "PatternPath", "ProbePath", "RawPath"]

PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
"""``{name}`` within a pattern; the group is the name."""

_PATH: Final = re.compile(r"/[!-\"$->@-~]*")


def _probe_path(value: str | None) -> str | None:
    if value is not None and (
        not value.startswith("/")
        or not value.isascii()
        or any(c <= " " or c in "#\x7f" for c in value)
    ):
        raise ValueError(f"{value!r} is not a path; it starts with '/' and is percent-encoded")
    return value


def _raw_path(value: str) -> str:
    if not _PATH.fullmatch(value) or climbs(value.encode("ascii")):
        raise ValueError(
            f"{value!r} is not a path; it starts with '/', is percent-encoded, and has no query"
            " and no dot segments that lead above it"
        )
    return value


def _pattern(value: str) -> str:
    _raw_path(PLACEHOLDER.sub("x", value))
    if "{" in PLACEHOLDER.sub("", value) or "}" in PLACEHOLDER.sub("", value):
        raise ValueError(f"{value!r} has a brace that is not closed; write {{name}}")
    if not all(name.isidentifier() for name in PLACEHOLDER.findall(value)):
        raise ValueError(f"{value!r} has a placeholder that is not a name; write {{name}}")
    return value


ProbePath = Annotated[str | None, AfterValidator(_probe_path), OrNone]
"""A percent-encoded path, with or without a query; or none."""

RawPath = Annotated[str, AfterValidator(_raw_path)]
"""A percent-encoded path without a query, whose dot segments do not lead above it."""

PatternPath = Annotated[str, AfterValidator(_pattern)]
"""A raw path with placeholders in braces."""
