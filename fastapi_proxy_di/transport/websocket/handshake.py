"""The WebSocket handshake with a destination: its request headers, and the check of the 101.

``websockets`` does the negotiation without I/O; its exceptions become `UpstreamProtocolError`
here. Hop-by-hop headers of the request are removed in ``wire.headers``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import (
    build_extension,
    build_subprotocol,
    parse_connection,
    parse_subprotocol,
    validate_subprotocols,
)
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri
from websockets.utils import generate_key

from fastapi_proxy_di.errors import UpstreamProtocolError
from fastapi_proxy_di.wire.headers import HANDSHAKE_HEADERS, TOKEN

__all__ = [
    "Accepted",
    "check_accept",
    "new_key",
    "offered_subprotocols",
    "subprotocols_to_offer",
    "upgrade_headers",
]

# RFC 9110 section 7.6.1 and 8.6: meant for this hop, or for a body that a 101 does not have.
_NOT_IN_ACCEPT: Final[frozenset[bytes]] = HANDSHAKE_HEADERS | {
    b"connection",
    b"content-length",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
_DEFLATE: Final = ClientPerMessageDeflateFactory(
    # Allows the upstream to choose a smaller window for our side, which saves memory on both.
    client_max_window_bits=True,
    # Half of zlib's memory for about the same ratio; the default of websockets' own clients.
    compress_settings={"memLevel": 5},
)
# The check of a 101 does not read the address.
_URI: Final = parse_uri("ws://upstream/")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A valid 101 response: subprotocol, extensions and headers.

    Attributes:
        subprotocol: The subprotocol that the upstream chose, ``None`` if it chose none.
        extensions: The agreed compression; empty for none.
        headers: The headers that may be forwarded to the client, in order, repeats kept.
    """

    subprotocol: str | None
    extensions: Sequence[Extension]
    headers: list[tuple[bytes, bytes]]


def new_key() -> bytes:
    """Give a fresh ``Sec-WebSocket-Key``: 16 random bytes in base64 (RFC 6455 section 4.1)."""
    return generate_key().encode()


def offered_subprotocols(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, ...]:
    """Give the subprotocols that a handshake offers, in order of preference.

    Args:
        headers: The headers of a handshake that `upgrade_headers` has built.
    """
    return tuple(
        subprotocol
        for name, value in headers
        if name == b"sec-websocket-protocol"
        for subprotocol in parse_subprotocol(value.decode("latin-1"))
    )


def subprotocols_to_offer(
    client: Sequence[str], override: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Give the subprotocols to offer upstream, in order of preference.

    Args:
        client: Subprotocols that the client offers, as the server gives them: some versions
            of uvicorn give the whole value of a header. Text that is not a token is dropped.
        override: Subprotocols to offer instead of the client's; an empty sequence offers none.

    Raises:
        ValueError: ``override`` holds text that is not an RFC 9110 token.
    """
    if override is None:
        tokens = (token.strip() for line in client for token in line.split(","))
        return tuple(token for token in tokens if TOKEN.match(token.encode("latin-1", "replace")))
    validate_subprotocols([Subprotocol(subprotocol) for subprotocol in override])
    return tuple(override)


def upgrade_headers(
    key: bytes, offered: Sequence[str], *, compression: bool
) -> list[tuple[bytes, bytes]]:
    """Build the headers that make a request an upgrade to WebSocket.

    Args:
        key: A key from `new_key`.
        offered: The subprotocols from `subprotocols_to_offer`. If empty no header is sent,
            because an empty header makes servers refuse or choose the empty name.
        compression: Whether to offer permessage-deflate.
    """
    headers = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", key),
        (b"sec-websocket-version", b"13"),
    ]
    if offered:
        value = build_subprotocol([Subprotocol(subprotocol) for subprotocol in offered])
        headers.append((b"sec-websocket-protocol", value.encode()))
    if compression:
        value = build_extension([(_DEFLATE.name, list(_DEFLATE.get_request_params()))])
        headers.append((b"sec-websocket-extensions", value.encode()))
    return headers


def check_accept(
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    key: bytes,
    offered: Sequence[str],
    *,
    compression: bool,
) -> Accepted:
    """Check the upstream's 101 as a client must (RFC 6455 section 4.1).

    Args:
        status: Status of the response.
        headers: Headers of the response, lower-case names.
        key: The key that was sent.
        offered: The subprotocols that were offered.
        compression: Whether permessage-deflate was offered.

    Raises:
        UpstreamProtocolError: The response does not open a WebSocket; the text says why.
    """
    client = ClientProtocol(
        _URI,
        subprotocols=[Subprotocol(subprotocol) for subprotocol in offered],
        extensions=[_DEFLATE] if compression else [],
    )
    client.key = key.decode()
    decoded = Headers()
    for name, value in headers:
        decoded[name.decode("latin-1")] = value.decode("latin-1").strip()
    try:
        client.process_response(Response(status, "", decoded))
        named = [
            option.lower().encode()
            for value in decoded.get_all("connection")
            for option in parse_connection(value)
        ]
    # websockets 12 takes a window of 8 bits, which zlib then refuses with a ValueError.
    except (InvalidHandshake, ValueError) as error:
        # Without its cause, whose text has the header's value as it came.
        raise UpstreamProtocolError(f"WebSocket handshake: {error}") from None
    return Accepted(
        client.subprotocol,
        client.extensions,
        [pair for pair in headers if pair[0] not in _NOT_IN_ACCEPT and pair[0] not in named],
    )
