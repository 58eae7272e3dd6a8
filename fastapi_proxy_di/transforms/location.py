"""Rewrites ``Location`` headers so that redirects lead through the mount. Pure, on raw bytes."""

from __future__ import annotations

import re
from typing import Final

_ABSOLUTE: Final = re.compile(rb"(?:https?:)?//([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)
_PATH: Final = re.compile(rb"[^?#]*")
_DEFAULT_PORT: Final = re.compile(rb":(?:80|443)?\Z")
# Browsers read a backslash as a slash, and two slashes as the start of a host name.
_ANOTHER_HOST: Final = re.compile(rb"/[/\\]")


def is_below(path: bytes, prefix: bytes) -> bool:
    """Whether ``path`` is ``prefix``, which has no slash at its end, or lies below it."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/")


def through_the_mount(
    value: bytes, *, mount: bytes, authority: bytes, base_path: bytes, host: bytes | None
) -> bytes:
    """Rewrite a ``Location`` that names the destination to a path below the mount.

    A location on another host is not changed, nor a path below the mount: the upstream has then
    applied ``X-Forwarded-Prefix`` itself.

    Args:
        value: Value of the header.
        mount: Raw path of the mount, no slash at its end.
        authority: Authority of the destination.
        base_path: Base path of the destination.
        host: The ``Host`` that was sent if it was not ``authority``.

    Returns:
        A path below the mount, or ``value`` unchanged.
    """
    absolute = _ABSOLUTE.match(value)
    if absolute is not None:
        named, rest = _plain(absolute[1]), absolute[2]
        if host is not None and named == _plain(host):
            if mount and is_below(_path(rest), mount):
                return value
        elif named != _plain(authority):
            return value
    elif value.startswith(b"/") and not (mount and is_below(_path(value), mount)):
        rest = value
    else:
        return value
    path = _path(rest)
    if not is_below(path or b"/", base_path):
        return value
    found = mount + rest[len(base_path) :]
    if not found.startswith(b"/"):
        found = b"/" + found
    # RFC 3986 section 4.2: without "/." a browser would read the start as a host name.
    return b"/." + found if _ANOTHER_HOST.match(found) else found


def _path(rest: bytes) -> bytes:
    match = _PATH.match(rest)
    assert match is not None  # the pattern matches the empty string too
    return match[0]


def _plain(authority: bytes) -> bytes:
    return _DEFAULT_PORT.sub(b"", authority.lower())
