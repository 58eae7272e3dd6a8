"""Makes text from outside safe to show: in a log line, a problem document or a status page.

A client chooses its path, a destination its headers. A line end in them would begin a log line of
their own, an escape sequence would colour a terminal, a right-to-left mark would reorder what
people read, and a long text would fill the log.

Text is made safe where it enters: `ProxyError` quotes its message, a lease the reason of a failure,
an access record its method and path, a problem document its detail. Logs and pages show these
texts unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

__all__ = ["quoted", "shown_path"]

# What a path may contain as it travels (RFC 3986 section 3.3), and what clients send besides.
_PATH_SAFE: Final = "/%:@!$&'()*+,;=-._~\"<>[]\\^`{|}"

_TEXT_CHARACTERS: Final = 500
_PATH_CHARACTERS: Final = 2000


def quoted(text: str) -> str:
    r"""Escape every character that is not printable: ``\n``, ``\x1b``, ``\u202e``.

    Quoting a quoted text changes nothing.

    Args:
        text: Text from outside, which is cut to 500 characters.
    """
    if not text.isprintable():
        text = "".join(
            one if one.isprintable() else one.encode("unicode_escape").decode()
            for one in text[: _TEXT_CHARACTERS + 1]
        )
    return _cut(text, _TEXT_CHARACTERS)


def shown_path(scope: Mapping[str, Any]) -> str:
    """Give the path of a request as it travelled, percent-encoded and without its query.

    Args:
        scope: The ASGI scope of the request. A path is cut to 2000 characters.
    """
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # not every server gives it
        path = quote(scope["path"], safe=_PATH_SAFE.replace("%", ""))
    else:
        path = quote(raw.partition(b"?")[0], safe=_PATH_SAFE)
    return _cut(path, _PATH_CHARACTERS)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 3] + "..."
