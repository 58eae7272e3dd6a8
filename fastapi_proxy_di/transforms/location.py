"""Rewrites headers with URLs of an upstream so that they lead through the mount. Pure, raw bytes.

The headers are ``Location`` (RFC 9110 section 10.2.2), ``Content-Location`` (8.7) and
``Refresh`` (HTML, "shared declarative refresh steps").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fastapi_proxy_di.pools.destination import Destination

__all__ = ["LEADING", "Places", "is_below", "rewritten"]

LEADING: Final = frozenset({b"location", b"content-location", b"refresh"})
"""The headers that are rewritten, in lower case."""

_ABSOLUTE: Final = re.compile(rb"(?:(https?):)?//([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)
_PATH: Final = re.compile(rb"[^?#]*")
# An upstream behind TLS may write its http port with https, and the other way round.
_DEFAULT_PORT: Final = re.compile(rb"\.?(?::(?:80|443)?)?\Z")
# Browsers read a backslash as a slash, and two slashes as the start of a host name.
_ANOTHER_HOST: Final = re.compile(rb"/[/\\]")
_REFRESH_TIME: Final = re.compile(rb"\s*[\d.]+(?:\s*[;,]|\s)\s*(?:url\s*=\s*)?", re.IGNORECASE)


class Places(NamedTuple):
    """What a URL of an upstream may lead to, for one exchange.

    Attributes:
        mount: Raw path of the mount as the client sees it, no slash at its end.
        destination: The destination that responded.
        pool: The destinations of the upstream.
        hosts: The gateway's own hosts: the values of ``X-Forwarded-Host`` that the destination
            got, and the client's ``Host``. The first one is the one that the client uses.
        sent_host: The ``Host`` that was sent if it was not the destination's own.
        scheme: The client's scheme, ``http`` or ``https``.
    """

    mount: bytes
    destination: Destination
    pool: Sequence[Destination] = ()
    hosts: Sequence[bytes] = ()
    sent_host: bytes | None = None
    scheme: str = "http"

    @property
    def base_path(self) -> bytes:
        """Base path of the destination that responded."""
        return self.destination.settings.address.base_path

    def is_own(self, authority: bytes) -> bool:
        """Whether the client knows the gateway by this plain authority."""
        return any(_plain(host) == authority for host in self.hosts)

    def base_paths(self, authority: bytes) -> Iterator[bytes]:
        """Give the base path of each destination with this plain authority."""
        if self.sent_host is not None and _plain(self.sent_host) == authority:
            yield self.base_path
        for destination in (self.destination, *self.pool):
            address = destination.settings.address
            if _plain(address.authority) == authority:
                yield address.base_path

    def secured(self, scheme: bytes | None) -> bytes:
        """Give the origin for a URL that leads a client from http to https, else ``b""``.

        Without the origin, a client that is sent from http to https would come back by http and
        be sent again, in a loop.
        """
        is_upgrade = (
            scheme is not None
            and scheme.lower() == b"https"
            and self.scheme == "http"
            and self.destination.settings.address.scheme != "https"
        )
        return b"https://" + self.hosts[0] if is_upgrade and self.hosts else b""


def is_below(path: bytes, prefix: bytes) -> bool:
    """Whether ``path`` is ``prefix``, which has no slash at its end, or lies below it."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/")


def rewritten(name: bytes, value: bytes, places: Places) -> bytes:
    """Rewrite one header.

    Args:
        name: One of `LEADING`.
        value: The value of the header.
        places: What its URL may lead to.
    """
    if name != b"refresh":
        return _through_the_mount(value, places)
    time = _REFRESH_TIME.match(value)
    if time is None:
        return value
    start, end = time.end(), len(value)
    quote = value[start : start + 1]
    if quote in (b"'", b'"'):
        start += 1
        closing = value.find(quote, start)
        end = end if closing < 0 else closing
    return value[:start] + _through_the_mount(value[start:end], places) + value[end:]


def _through_the_mount(value: bytes, places: Places) -> bytes:
    """Rewrite one URL reference to a path below the mount, if it leads to the upstream."""
    absolute = _ABSOLUTE.match(value)
    if absolute is None:
        if not value.startswith(b"/"):
            return value
        found = _below_the_mount(value, places.base_path, places.mount)
        return value if found is None or found == value else _path_only(found)
    scheme, rest, authority = absolute[1], absolute[3], _plain(absolute[2])
    if not rest.startswith(b"/"):
        rest = b"/" + rest  # RFC 3986 section 6.2.3
    if places.is_own(authority):
        found = _below_the_mount(rest, places.base_path, places.mount)
        if found is None or found == rest:
            return value
    else:
        base_paths = [*places.base_paths(authority)]
        if not base_paths:
            return value
        path = _path(rest)
        base_path = next((base for base in base_paths if is_below(path, base)), base_paths[0])
        found = _below_the_mount(rest, base_path, places.mount) or rest
    origin = places.secured(scheme)
    return origin + found if origin else _path_only(found)


def _below_the_mount(rest: bytes, base_path: bytes, mount: bytes) -> bytes | None:
    """Exchange the base path for the mount, unless the upstream has applied the mount itself.

    If both stand in front, one of them lies below the other, and the longer one is meant.

    Args:
        rest: A path from the root, with its query and fragment.
        base_path: Base path of the destination.
        mount: Raw path of the mount.

    Returns:
        A path below the mount; ``None`` if the path is outside of the base path and the mount.
    """
    path = _path(rest)
    below_base = is_below(path, base_path)
    if is_below(path, mount) and not (below_base and len(base_path) > len(mount)):
        return rest
    return mount + rest[len(base_path) :] if below_base else None


def _path_only(found: bytes) -> bytes:
    """Make a reference that cannot be read as a host name, which two slashes would start."""
    if not found.startswith(b"/"):
        found = b"/" + found
    # RFC 3986 section 4.2
    return b"/." + found if _ANOTHER_HOST.match(found) else found


def _path(rest: bytes) -> bytes:
    match = _PATH.match(rest)
    assert match is not None  # the pattern matches the empty string too
    return match[0]


def _plain(authority: bytes) -> bytes:
    """Remove from an authority what two spellings of one host may differ in."""
    return _DEFAULT_PORT.sub(b"", authority.rpartition(b"@")[2].lower(), count=1)
