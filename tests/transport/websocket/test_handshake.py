"""WebSocket handshakes with an upstream: the headers sent, and the check of the 101."""

import traceback

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate

from fastapi_proxy_di.errors import UpstreamProtocolError
from fastapi_proxy_di.transport.websocket.handshake import (
    Accepted,
    check_accept,
    new_key,
    offered_subprotocols,
    subprotocols_to_offer,
    upgrade_headers,
)
from fastapi_proxy_di.wire.headers import HANDSHAKE_HEADERS

_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
_VALID = [
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-accept", _ACCEPT),
]


def _check(
    *extra: tuple[bytes, bytes],
    drop: bytes = b"",
    status: int = 101,
    offered: tuple[str, ...] = (),
    compression: bool = False,
) -> Accepted:
    headers = [pair for pair in _VALID if pair[0] != drop] + list(extra)
    return check_accept(status, headers, _KEY, offered, compression=compression)


def test_new_key_is_sixteen_bytes_and_fresh() -> None:
    """A key is 24 characters of base64, and no two are alike."""
    keys = {new_key() for _ in range(8)}

    assert len(keys) == 8
    assert {len(key) for key in keys} == {24}


def test_offered_subprotocols_keeps_the_clients_order_over_several_headers() -> None:
    """Every token counts, in one header or in several; empty ones do not."""
    headers = [
        (b"sec-websocket-protocol", b"v2.chat , v1.chat,"),
        (b"origin", b"https://a.test"),
        (b"sec-websocket-protocol", b"superchat"),
    ]

    assert offered_subprotocols(headers) == ("v2.chat", "v1.chat", "superchat")


def test_subprotocols_to_offer_are_the_clients() -> None:
    """In their order; text that is not a token is dropped."""
    client = ["v2.chat", "", "gr\udcfc\udcdfe", "v1.chat", "a b"]

    assert subprotocols_to_offer(client) == ("v2.chat", "v1.chat")
    assert subprotocols_to_offer(["v2.chat, v1.chat"]) == ("v2.chat", "v1.chat")


def test_subprotocols_to_offer_can_be_replaced() -> None:
    """What the caller asks for wins; an empty one offers none."""
    assert subprotocols_to_offer(["chat"], ["mqtt"]) == ("mqtt",)
    assert subprotocols_to_offer(["chat"], []) == ()


@pytest.mark.parametrize("subprotocol", ["", "a b", "a,b", "a\r\nx: y"])
def test_subprotocols_to_offer_refuses_text_that_is_not_a_token(subprotocol: str) -> None:
    """A caller's mistake is a ``ValueError``, never a broken request."""
    with pytest.raises(ValueError, match="invalid subprotocol"):
        subprotocols_to_offer([], [subprotocol])


def test_upgrade_headers_ask_for_a_websocket_and_offer_nothing_by_default() -> None:
    """Without an offer there is no header for subprotocols or extensions."""
    assert upgrade_headers(_KEY, (), compression=False) == [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", _KEY),
        (b"sec-websocket-version", b"13"),
    ]


def test_upgrade_headers_carry_the_offer() -> None:
    """Subprotocols and compression are offered in one header each."""
    headers = upgrade_headers(_KEY, ("v2.chat", "chat"), compression=True)

    assert headers[-2:] == [
        (b"sec-websocket-protocol", b"v2.chat, chat"),
        (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits"),
    ]
    assert {name for name, _ in headers} - {b"connection", b"upgrade"} <= HANDSHAKE_HEADERS


def test_check_accept_takes_a_plain_101() -> None:
    """Without subprotocol and extension, only the headers that may cross are left."""
    assert _check() == Accepted(None, [], [])


def test_check_accept_compares_upgrade_and_connection_without_case() -> None:
    """Names are case-insensitive, and Connection is a list."""
    headers = [
        (b"upgrade", b"WebSocket"),
        (b"connection", b"keep-alive, UPGRADE"),
        (b"sec-websocket-accept", b" " + _ACCEPT),
    ]

    assert check_accept(101, headers, _KEY, (), compression=False).headers == []


def test_check_accept_keeps_headers_that_cross_with_repeats_in_order() -> None:
    """Cookies and other headers cross; headers of this hop, and those Connection names, do not."""
    crossing = [(b"set-cookie", b"a=1"), (b"x-node", b"7"), (b"set-cookie", b"b=2")]

    accepted = _check(
        *crossing,
        (b"connection", b"x-hop"),
        (b"x-hop", b"1"),
        (b"content-length", b"0"),
        (b"sec-websocket-version", b"13"),
    )

    assert accepted.headers == crossing


def test_check_accept_gives_the_chosen_subprotocol() -> None:
    """A choice among those offered is the tunnel's subprotocol."""
    accepted = _check((b"sec-websocket-protocol", b"chat"), offered=("v2.chat", "chat"))

    assert accepted.subprotocol == "chat"


@pytest.mark.parametrize(
    ("drop", "extra", "status", "says"),
    [
        (b"", (), 200, "HTTP 200"),
        (b"upgrade", (), 101, "missing Upgrade"),
        (b"upgrade", ((b"upgrade", b"h2c"),), 101, "invalid Upgrade header: h2c"),
        (b"connection", (), 101, "missing Connection"),
        (b"connection", ((b"connection", b"close"),), 101, "invalid Connection header: close"),
        (b"sec-websocket-accept", (), 101, "missing Sec-WebSocket-Accept"),
        (b"", ((b"sec-websocket-accept", _ACCEPT),), 101, "Sec-WebSocket-Accept"),
        (b"", ((b"sec-websocket-protocol", b"mqtt"),), 101, "unsupported subprotocol: mqtt"),
        (
            b"",
            ((b"sec-websocket-protocol", b"chat"), (b"sec-websocket-protocol", b"chat")),
            101,
            "multiple .*: chat, chat",
        ),
        (
            b"",
            ((b"sec-websocket-extensions", b"permessage-deflate"),),
            101,
            "[uU]nsupported extension: name = permessage-deflate",
        ),
    ],
)
def test_check_accept_refuses_with_a_reason(
    drop: bytes, extra: tuple[tuple[bytes, bytes], ...], status: int, says: str
) -> None:
    """Each fault of RFC 6455 §4.1 is an upstream's protocol error that names it."""
    with pytest.raises(UpstreamProtocolError, match=says):
        _check(*extra, drop=drop, status=status, offered=("chat",))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"permessage-deflate", PerMessageDeflate(False, False, 15, 15)),
        (
            b"permessage-deflate; server_no_context_takeover;client_no_context_takeover",
            PerMessageDeflate(True, True, 15, 15),
        ),
        (
            b'permessage-deflate; server_max_window_bits=8; client_max_window_bits = "12", ',
            PerMessageDeflate(False, False, 8, 12),
        ),
    ],
)
def test_check_accept_reads_the_agreed_compression(
    value: bytes, expected: PerMessageDeflate
) -> None:
    """The parameters of permessage-deflate are read as RFC 7692 writes them."""
    accepted = _check((b"sec-websocket-extensions", value), compression=True)

    assert [repr(extension) for extension in accepted.extensions] == [repr(expected)]


@pytest.mark.parametrize(
    "value",
    [
        b"x-webkit-deflate-frame",
        b"permessage-deflate, permessage-deflate",
        b"permessage-deflate; server_max_window_bits=16",
        b"permessage-deflate; client_max_window_bits=8",
        b"permessage-deflate; client_max_window_bits",
        b"permessage-deflate; server_no_context_takeover=1",
        b"permessage-deflate; unknown",
        b"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
    ],
)
def test_check_accept_refuses_compression_that_cannot_be(value: bytes) -> None:
    """An extension, parameter or value that was not offered or is unknown is a fault."""
    with pytest.raises(UpstreamProtocolError, match="WebSocket handshake"):
        _check((b"sec-websocket-extensions", value), compression=True)


@pytest.mark.parametrize("name", [b"upgrade", b"connection", b"sec-websocket-accept"])
def test_check_accept_shows_a_short_printable_text(name: bytes) -> None:
    """An endless or unprintable header value does not reach the error's text."""
    with pytest.raises(UpstreamProtocolError) as raised:
        _check((name, b"\x9b\xff" + b"x" * 9000), drop=name)

    shown = "".join(traceback.format_exception(raised.value))
    assert str(raised.value).isprintable()
    assert "\x9b" not in shown
    assert len(str(raised.value)) <= 500
    assert "x" * 500 not in shown
