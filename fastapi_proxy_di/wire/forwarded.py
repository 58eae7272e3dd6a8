"""Forwarding headers: ``X-Forwarded-*``, ``Forwarded`` (RFC 7239) and ``X-Real-IP``.

Forwarding headers of an untrusted peer are never forwarded. Pure; results are cached by client.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Literal

from fastapi_proxy_di.wire.headers import TOKEN, Headers

Mode = Literal["set", "append", "off"]

_PROTO: Final = {
    "http": (b"x-forwarded-proto", b"http"),
    "https": (b"x-forwarded-proto", b"https"),
    "ws": (b"x-forwarded-proto", b"http"),
    "wss": (b"x-forwarded-proto", b"https"),
}
_OURS: Final = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix"}
)


_REMEMBERED: Final = 1024
"""Clients for which results are cached."""


class Forwarding:
    """Makes the forwarding headers of a request.

    Args:
        mode: ``set`` describes this connection, ``append`` adds it to the headers of a trusted
            peer, ``off`` adds nothing.
        trusted: Networks of the peers whose forwarding headers are trusted.
        rfc7239: Send ``Forwarded`` too.
    """

    def __init__(
        self, mode: Mode, trusted: Sequence[IPv4Network | IPv6Network], *, rfc7239: bool
    ) -> None:
        self._mode = mode
        self._trusted = tuple(trusted)
        self._rfc7239 = rfc7239
        self._is_trusted = lru_cache(maxsize=_REMEMBERED)(self._look_up)
        self._stated = lru_cache(maxsize=_REMEMBERED)(self._state)

    def trusts(self, peer: str | None) -> bool:
        """Whether forwarding headers of ``peer`` are trusted; never without an address."""
        return bool(self._trusted) and peer is not None and self._is_trusted(peer)

    def headers(
        self,
        peer: str | None,
        scheme: str,
        host: bytes | None,
        prefix: bytes,
        received: Sequence[tuple[bytes, bytes]],
    ) -> Sequence[tuple[bytes, bytes]]:
        """Give the forwarding headers to send.

        Args:
            peer: The client's address, ``None`` when the server knows none.
            scheme: Scheme of the ASGI scope.
            host: ``Host`` header of the client.
            prefix: Raw path of the mount.
            received: Forwarding headers of the client, names in lower case.
        """
        believed = received if received and self.trusts(peer) else ()
        if self._mode == "off":
            return believed
        if not believed:
            return self._stated(peer, scheme, host, prefix)
        if self._mode == "append":
            return self._extend(peer, scheme, host, prefix, believed)
        replaced = _OURS | {b"forwarded"} if self._rfc7239 else _OURS
        return [
            *(pair for pair in believed if pair[0].replace(b"_", b"-") not in replaced),
            *self._stated(peer, scheme, host, prefix),
        ]

    def _state(
        self, peer: str | None, scheme: str, host: bytes | None, prefix: bytes
    ) -> tuple[tuple[bytes, bytes], ...]:
        """Give the headers from this connection alone."""
        headers: Headers = []
        if peer:
            headers.append((b"x-forwarded-for", peer.encode("latin-1", "replace")))
        if scheme in _PROTO:
            headers.append(_PROTO[scheme])
        if host:
            headers.append((b"x-forwarded-host", host))
        if prefix:
            headers.append((b"x-forwarded-prefix", prefix))
        if self._rfc7239:
            headers.append((b"forwarded", element(peer, scheme, host)))
        return tuple(headers)

    def _extend(
        self,
        peer: str | None,
        scheme: str,
        host: bytes | None,
        prefix: bytes,
        received: Sequence[tuple[bytes, bytes]],
    ) -> Headers:
        """Mode ``append``: keep the peer's values and add ours after them."""
        by_name: dict[bytes, list[bytes]] = {}
        for name, value in received:
            # RFC 9110 section 5.6.1.1: no empty list element is sent.
            if members := value.strip(b", \t"):
                by_name.setdefault(name, []).append(members)
        replaced = _OURS | {b"forwarded"}
        headers = [pair for pair in received if pair[0].replace(b"_", b"-") not in replaced]
        hops = [*by_name.get(b"x-forwarded-for", ()), *([peer.encode("latin-1")] if peer else ())]
        if hops:
            headers.append((b"x-forwarded-for", b", ".join(hops)))
        proto = by_name.get(b"x-forwarded-proto")
        if proto:
            headers.append((b"x-forwarded-proto", b", ".join(proto)))
        elif scheme in _PROTO:
            headers.append(_PROTO[scheme])
        hosts = by_name.get(b"x-forwarded-host", [host] if host else [])
        if hosts:
            headers.append((b"x-forwarded-host", b", ".join(hosts)))
        whole_prefix = b"".join(by_name.get(b"x-forwarded-prefix", ())[:1]).rstrip(b"/") + prefix
        if whole_prefix:
            headers.append((b"x-forwarded-prefix", whole_prefix))
        elements = by_name.get(b"forwarded", [])
        if self._rfc7239:
            elements = [*elements, element(peer, scheme, host)]
        if elements:
            headers.append((b"forwarded", b", ".join(elements)))
        return headers

    def _look_up(self, peer: str) -> bool:
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any(
            candidate in network
            for network in self._trusted
            for candidate in (address, mapped)
            if candidate is not None and candidate.version == network.version
        )


def element(peer: str | None, scheme: str, host: bytes | None) -> bytes:
    """Give one ``forwarded-element`` (RFC 7239 section 4)."""
    node = b"unknown"
    if peer:
        raw = peer.encode("latin-1", "replace")
        node = b'"[%b]"' % raw if b":" in raw else raw
    proto = _PROTO.get(scheme, (b"", b""))[1]
    parts = [b"for=" + node]
    if host:
        parts.append(b"host=" + (host if TOKEN.match(host) else b'"%b"' % _quotable(host)))
    if proto:
        parts.append(b"proto=" + proto)
    return b";".join(parts)


def _quotable(value: bytes) -> bytes:
    """Escape the content of a quoted-string (RFC 9110 section 5.6.4)."""
    return value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
