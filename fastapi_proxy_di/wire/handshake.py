"""The words of a WebSocket's handshakes: fields that go up, valid answers, close codes.

Pure functions over header pairs and codes (RFC 6455, RFC 7692). Knows no sockets, no
frames and no ASGI server; general hop-by-hop removal of the request is ``wire.headers``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi_proxy_di.errors import UpstreamProtocolError
from fastapi_proxy_di.wire.headers import HANDSHAKE_FIELDS

__all__ = [
    "Accepted",
    "Close",
    "Deflate",
    "accept_for",
    "check_accept",
    "close_downwards",
    "close_upwards",
    "may_be_sent",
    "new_key",
    "offered_subprotocols",
    "subprotocols_to_offer",
    "upgrade_headers",
]

# RFC 6455 §1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# RFC 9110 §7.6.1 and §8.6: they speak of this hop, or of a body that a 101 does not have.
_NOT_IN_ACCEPT: Final[frozenset[bytes]] = HANDSHAKE_FIELDS | {
    b"connection",
    b"content-length",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_DEFLATE: Final = b"permessage-deflate"
# What each parameter of an answer may be set to. zlib cannot compress with a raw window of
# 8 bits, so we cannot agree to that one.
_DEFLATE_VALUES: Final[dict[bytes, dict[bytes, int]]] = {
    b"server_no_context_takeover": {b"": 1},
    b"client_no_context_takeover": {b"": 1},
    b"server_max_window_bits": {str(bits).encode(): bits for bits in range(8, 16)},
    b"client_max_window_bits": {str(bits).encode(): bits for bits in range(9, 16)},
}
# IANA's WebSocket Close Code Number Registry without those kept for local use.
_REGISTERED_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
# RFC 6455 §5.5: a control frame holds 125 bytes, two of them are the code.
_MAX_REASON_BYTES: Final = 123


@dataclass(frozen=True, slots=True)
class Deflate:
    """The permessage-deflate parameters both sides agreed on (RFC 7692 §7.1)."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


@dataclass(frozen=True, slots=True)
class Accepted:
    """A valid 101.

    Attributes:
        subprotocol: The one the upstream chose, ``None`` if it chose none.
        deflate: Compression in force, ``None`` without.
        headers: The pairs that may cross to the client, in order, repeats kept.
    """

    subprotocol: str | None
    deflate: Deflate | None
    headers: list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Close:
    """A close frame that may be sent. ``code=None`` is the empty one."""

    code: int | None = None
    reason: str = ""


def new_key() -> bytes:
    """Give a fresh ``Sec-WebSocket-Key``: 16 random bytes in base64 (RFC 6455 §4.1)."""
    return base64.b64encode(os.urandom(16))


def accept_for(key: bytes) -> bytes:
    """Give the ``Sec-WebSocket-Accept`` that answers ``key`` (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def offered_subprotocols(headers: Sequence[tuple[bytes, bytes]]) -> tuple[str, ...]:
    """Give the subprotocols that a handshake offers, in order of preference.

    Args:
        headers: Of the handshake, lower-case names.
    """
    return tuple(
        token.decode("latin-1")
        for name, value in headers
        if name == b"sec-websocket-protocol"
        for token in map(bytes.strip, value.split(b","))
        if token
    )


def subprotocols_to_offer(
    client: Sequence[str], override: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Give the subprotocols to offer upstream, in order of preference.

    Args:
        client: Those that the client offers, as the server gives them: some uvicorns
            give whole field lines. What is no token among them stays behind.
        override: Offered instead of the client's; an empty one offers none.

    Raises:
        ValueError: ``override`` holds what is not an RFC 9110 token.
    """
    if override is None:
        tokens = (token.strip() for line in client for token in line.split(","))
        return tuple(filter(_TOKEN.fullmatch, tokens))
    for subprotocol in override:
        if not _TOKEN.fullmatch(subprotocol):
            raise ValueError(f"subprotocol {subprotocol!r} is not a token (RFC 6455 §4.1)")
    return tuple(override)


def upgrade_headers(
    key: bytes, offered: Sequence[str], *, compression: bool
) -> list[tuple[bytes, bytes]]:
    """Build the pairs that make a request an upgrade to WebSocket.

    Args:
        key: From ``new_key``.
        offered: From ``subprotocols_to_offer``. None offered: no field, for an empty one
            makes servers refuse or choose the empty name.
        compression: Whether to offer permessage-deflate.
    """
    headers = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", key),
        (b"sec-websocket-version", b"13"),
    ]
    if offered:
        headers.append((b"sec-websocket-protocol", ", ".join(offered).encode("latin-1")))
    if compression:
        # Lets the upstream choose a smaller window for us, that is, less memory for both.
        headers.append((b"sec-websocket-extensions", _DEFLATE + b"; client_max_window_bits"))
    return headers


def check_accept(
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    key: bytes,
    offered: Sequence[str],
    *,
    compression: bool,
) -> Accepted:
    """Check the upstream's 101 as a client must (RFC 6455 §4.1).

    Args:
        status: Status of the answer.
        headers: Its fields, lower-case names.
        key: The key that was sent.
        offered: The subprotocols that were offered.
        compression: Whether permessage-deflate was offered.

    Raises:
        UpstreamProtocolError: The answer does not open a WebSocket, and why.
    """
    if status != 101:
        raise UpstreamProtocolError(f"WebSocket handshake: expected status 101, got {status}")
    if (upgrade := _joined(headers, b"upgrade")).lower() != b"websocket":
        raise UpstreamProtocolError(f"WebSocket handshake: Upgrade is {_shown(upgrade)}")
    connection = _joined(headers, b"connection")
    named = frozenset(map(bytes.strip, connection.lower().split(b",")))
    if b"upgrade" not in named:
        raise UpstreamProtocolError(
            f"WebSocket handshake: Connection is {_shown(connection)}, without Upgrade"
        )
    if _joined(headers, b"sec-websocket-accept") != accept_for(key):
        raise UpstreamProtocolError(
            "WebSocket handshake: Sec-WebSocket-Accept does not answer our key"
        )
    return Accepted(
        _chosen_subprotocol(headers, offered),
        _agreed_deflate(_joined(headers, b"sec-websocket-extensions"), compression),
        [pair for pair in headers if pair[0] not in _NOT_IN_ACCEPT and pair[0] not in named],
    )


def may_be_sent(code: int) -> bool:
    """Whether ``code`` may stand in a close frame (RFC 6455 §7.4)."""
    return code in _REGISTERED_CODES or 3000 <= code < 5000


def close_upwards(code: int, reason: str | None, *, framed: bool) -> Close | None:
    """Map how the server says the client ended to what the upstream gets.

    Args:
        code: ``code`` of ``websocket.disconnect``.
        reason: Its ``reason``.
        framed: Whether it had a ``reason`` key. Servers set it when a close frame came;
            uvicorn reports a lost connection as 1005 without it.

    Returns:
        The close frame to send; ``None`` if the client vanished, so that the upstream
        must not see a clean end either.
    """
    if code in (1006, 1015) or (code == 1005 and not framed):
        return None
    if code == 1005:
        return Close()
    # A code that no endpoint may send is the client's protocol error.
    return Close(code if may_be_sent(code) else 1002, _cut(reason or ""))


def close_downwards(code: int, reason: str = "") -> Close:
    """Map how the upstream ended to what the client gets.

    Args:
        code: The upstream's close code; 1005 for an empty close, 1006 for a lost
            connection, 1015 for a TLS failure.
        reason: Its reason.

    Returns:
        A close frame with a code, for ASGI cannot send an empty one: empty becomes 1000,
        whatever may not be sent becomes 1014, bad gateway.
    """
    if code == 1005:
        return Close(1000)
    return Close(code if may_be_sent(code) else 1014, _cut(reason))


def _cut(reason: str) -> str:
    """Shorten ``reason`` to what a close frame holds, at the border of a character."""
    encoded = reason.encode("utf-8", "replace")
    return encoded[:_MAX_REASON_BYTES].decode("utf-8", "ignore")


def _joined(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Give all values of ``name`` as one list value (RFC 9110 §5.3), ``b""`` if absent."""
    return b", ".join([value.strip() for field, value in headers if field == name])


def _shown(value: bytes) -> str:
    """Give ``value`` for an error text: short, and nothing but printable."""
    return repr(value[:64].decode("latin-1")) if value else "missing"


def _chosen_subprotocol(
    headers: Sequence[tuple[bytes, bytes]], offered: Sequence[str]
) -> str | None:
    """Give the upstream's choice, which must be one that was offered."""
    chosen = [value.strip() for name, value in headers if name == b"sec-websocket-protocol"]
    if not chosen:
        return None
    subprotocol = chosen[0].decode("latin-1")
    if len(chosen) > 1 or subprotocol not in offered:
        raise UpstreamProtocolError(
            f"WebSocket handshake: subprotocol {_shown(b', '.join(chosen))} was not offered"
        )
    return subprotocol


def _agreed_deflate(extensions: bytes, compression: bool) -> Deflate | None:
    """Read ``Sec-WebSocket-Extensions``, which may hold nothing that was not offered."""
    agreed: Deflate | None = None
    for item in filter(None, map(bytes.strip, extensions.split(b","))):
        name, *parameters = map(bytes.strip, item.split(b";"))
        if name.lower() != _DEFLATE or not compression or agreed is not None:
            raise UpstreamProtocolError(
                f"WebSocket handshake: extension {_shown(item)} was not offered"
            )
        agreed = _deflate(parameters)
    return agreed


def _deflate(parameters: Sequence[bytes]) -> Deflate:
    """Read the parameters of permessage-deflate, each at most once (RFC 7692 §7.1)."""
    seen: dict[bytes, int] = {}
    for parameter in parameters:
        name, _, value = map(bytes.strip, parameter.partition(b"="))
        if name in seen:
            raise UpstreamProtocolError(f"WebSocket handshake: repeated {_shown(parameter)}")
        number = _DEFLATE_VALUES.get(name, {}).get(value.strip(b'"'))
        if number is None:
            raise UpstreamProtocolError(
                f"WebSocket handshake: permessage-deflate with {_shown(parameter)}"
            )
        seen[name] = number
    return Deflate(
        server_no_context_takeover=b"server_no_context_takeover" in seen,
        client_no_context_takeover=b"client_no_context_takeover" in seen,
        server_max_window_bits=seen.get(b"server_max_window_bits", 15),
        client_max_window_bits=seen.get(b"client_max_window_bits", 15),
    )
