"""Where a redirect leads, seen from the client. Pure, on raw values."""

from __future__ import annotations

import re
from typing import Final

_ABSOLUTE: Final = re.compile(rb"(?:https?:)?//([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)
_PATH: Final = re.compile(rb"[^?#]*")
_DEFAULT_PORT: Final = re.compile(rb":(?:80|443)?\Z")
# Browsers take a backslash for a slash, and two for another host's name.
_ANOTHER_HOST: Final = re.compile(rb"/[/\\]")


def is_below(path: bytes, prefix: bytes) -> bool:
    """Whether ``prefix``, which ends with no slash, stands before ``path`` at whole segments."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/")


def through_the_mount(
    value: bytes, *, mount: bytes, authority: bytes, base_path: bytes, host: bytes | None
) -> bytes:
    """Lead a Location that names the destination through the mount.

    What names another host, or the gateway as the client knows it, stays; so does a path
    that has the mount already: the upstream has heeded ``X-Forwarded-Prefix``.

    Args:
        value: Of the field.
        mount: Raw path of the mount, no slash at its end.
        authority: The destination's.
        base_path: The destination's.
        host: The Host that it was sent instead, if another.

    Returns:
        A path below the mount, or ``value``.
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
    # RFC 3986 section 4.2: or it would be read as the name of a host.
    return b"/." + found if _ANOTHER_HOST.match(found) else found


def _path(rest: bytes) -> bytes:
    match = _PATH.match(rest)
    assert match is not None  # it matches nothing as well
    return match[0]


def _plain(authority: bytes) -> bytes:
    return _DEFAULT_PORT.sub(b"", authority.lower())
