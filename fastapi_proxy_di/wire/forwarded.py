"""Forwarding fields: who the client was, and which hops may say so.

``X-Forwarded-*``, ``Forwarded`` (RFC 7239), ``X-Real-IP``. What an untrusted peer sends
under these names never crosses. The decision is made from the settings once; a request
costs a few pairs.
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
"""Clients whose fields are remembered."""


class Forwarding:
    """Makes the forwarding fields of a request.

    Args:
        mode: ``set`` states what we see, ``append`` extends what a trusted peer said,
            ``off`` adds nothing.
        trusted: Networks whose peers are believed.
        rfc7239: Send ``Forwarded`` as well.
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
        """Whether forwarding fields from ``peer`` are believed; no address never is."""
        return bool(self._trusted) and peer is not None and self._is_trusted(peer)

    def headers(
        self,
        peer: str | None,
        scheme: str,
        host: bytes | None,
        prefix: bytes,
        received: Sequence[tuple[bytes, bytes]],
    ) -> Sequence[tuple[bytes, bytes]]:
        """The forwarding fields to send.

        Args:
            peer: The client's address, ``None`` when the server knows none.
            scheme: The scope's scheme.
            host: The client's Host.
            prefix: Raw path in front of the forwarded part.
            received: Forwarding fields as the client sent them, lower-case names.
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
            *(pair for pair in believed if pair[0] not in replaced),
            *self._stated(peer, scheme, host, prefix),
        ]

    def _state(
        self, peer: str | None, scheme: str, host: bytes | None, prefix: bytes
    ) -> tuple[tuple[bytes, bytes], ...]:
        """What we see ourselves; remembered, because clients come again."""
        fields: Headers = []
        if peer:
            fields.append((b"x-forwarded-for", peer.encode("latin-1", "replace")))
        if scheme in _PROTO:
            fields.append(_PROTO[scheme])
        if host:
            fields.append((b"x-forwarded-host", host))
        if prefix:
            fields.append((b"x-forwarded-prefix", prefix))
        if self._rfc7239:
            fields.append((b"forwarded", element(peer, scheme, host)))
        return tuple(fields)

    def _extend(
        self,
        peer: str | None,
        scheme: str,
        host: bytes | None,
        prefix: bytes,
        received: Sequence[tuple[bytes, bytes]],
    ) -> Headers:
        """``append``: the peer's statements stand, ours are added behind them."""
        said: dict[bytes, list[bytes]] = {}
        for name, value in received:
            said.setdefault(name, []).append(value)
        fields = [pair for pair in received if pair[0] not in _OURS and pair[0] != b"forwarded"]
        hops = [*said.get(b"x-forwarded-for", ()), *([peer.encode("latin-1")] if peer else ())]
        if hops:
            fields.append((b"x-forwarded-for", b", ".join(hops)))
        proto = said.get(b"x-forwarded-proto")
        if proto:
            fields.append((b"x-forwarded-proto", b", ".join(proto)))
        elif scheme in _PROTO:
            fields.append(_PROTO[scheme])
        hosts = said.get(b"x-forwarded-host", [host] if host else [])
        if hosts:
            fields.append((b"x-forwarded-host", b", ".join(hosts)))
        whole_prefix = b"".join(said.get(b"x-forwarded-prefix", ())[:1]).rstrip(b"/") + prefix
        if whole_prefix:
            fields.append((b"x-forwarded-prefix", whole_prefix))
        elements = said.get(b"forwarded", [])
        if self._rfc7239:
            elements = [*elements, element(peer, scheme, host)]
        if elements:
            fields.append((b"forwarded", b", ".join(elements)))
        return fields

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
    """One forwarded-element of RFC 7239 section 4."""
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
    """A quoted-string's inside, RFC 9110 section 5.6.4."""
    return value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
