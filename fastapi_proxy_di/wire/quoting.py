"""Makes text from outside safe to show: in a log line, a problem document or a status page.

A client chooses its path, a destination its reason phrases. A line end in them would begin a log
line of their own, an escape sequence would colour a terminal, and a right-to-left mark would
reorder what people read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

__all__ = ["quoted", "shown_path"]

# What a path may contain as it travels (RFC 3986 section 3.3), and what clients send besides.
_PATH_SAFE = "/%:@!$&'()*+,;=-._~\"<>[]\\^`{|}"


def quoted(text: str) -> str:
    r"""Escape every character that is not printable: ``\n``, ``\x1b``, ``\u202e``.

    Args:
        text: Text from outside.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def shown_path(scope: Mapping[str, Any]) -> str:
    """Give the path of a request as it travelled, percent-encoded and without its query.

    Args:
        scope: The ASGI scope of the request.
    """
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # not every server gives it
        return quote(scope["path"], safe=_PATH_SAFE.replace("%", ""))
    return quote(raw.partition(b"?")[0], safe=_PATH_SAFE)
