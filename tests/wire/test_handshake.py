"""WebSocket handshake fields, the check of a 101, and close codes both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.errors import UpstreamProtocolError
from fastapi_proxy_di.wire.handshake import (
    Accepted,
    Close,
    Deflate,
    accept_for,
    check_accept,
    close_downwards,
    close_upwards,
    may_be_sent,
    new_key,
    offered_subprotocols,
    subprotocols_to_offer,
    upgrade_headers,
)
from fastapi_proxy_di.wire.headers import HANDSHAKE_FIELDS

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


def test_accept_for_is_the_example_of_the_rfc() -> None:
    """RFC 6455 §1.3 gives a key and its answer."""
    assert accept_for(_KEY) == _ACCEPT


def test_new_key_is_sixteen_bytes_and_fresh() -> None:
    """A key is 24 characters of base64, and no two are alike."""
    keys = {new_key() for _ in range(8)}

    assert len(keys) == 8
    assert {len(key) for key in keys} == {24}


def test_offered_subprotocols_keeps_the_clients_order_over_several_fields() -> None:
    """Every token counts, whether in one field or in several; empty ones do not."""
    headers = [
        (b"sec-websocket-protocol", b"v2.chat , v1.chat,"),
        (b"origin", b"https://a.test"),
        (b"sec-websocket-protocol", b"superchat"),
    ]

    assert offered_subprotocols(headers) == ("v2.chat", "v1.chat", "superchat")


def test_subprotocols_to_offer_are_the_clients() -> None:
    """In their order; what is no token stays behind."""
    client = ["v2.chat", "", "gr\udcfc\udcdfe", "v1.chat", "a b"]

    assert subprotocols_to_offer(client) == ("v2.chat", "v1.chat")
    assert subprotocols_to_offer(["v2.chat, v1.chat"]) == ("v2.chat", "v1.chat")


def test_subprotocols_to_offer_can_be_replaced() -> None:
    """What the caller asks for wins; an empty one offers none."""
    assert subprotocols_to_offer(["chat"], ["mqtt"]) == ("mqtt",)
    assert subprotocols_to_offer(["chat"], []) == ()


@pytest.mark.parametrize("subprotocol", ["", "a b", "a,b", "a\r\nx: y"])
def test_subprotocols_to_offer_refuses_what_is_no_token(subprotocol: str) -> None:
    """A caller's mistake is a ``ValueError``, never a broken request."""
    with pytest.raises(ValueError, match="not a token"):
        subprotocols_to_offer([], [subprotocol])


def test_upgrade_headers_ask_for_a_websocket_and_offer_nothing_by_default() -> None:
    """Without an offer there is no subprotocol or extension field at all."""
    assert upgrade_headers(_KEY, (), compression=False) == [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", _KEY),
        (b"sec-websocket-version", b"13"),
    ]


def test_upgrade_headers_carry_the_offer() -> None:
    """Subprotocols and compression are offered in one field each."""
    headers = upgrade_headers(_KEY, ("v2.chat", "chat"), compression=True)

    assert headers[-2:] == [
        (b"sec-websocket-protocol", b"v2.chat, chat"),
        (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits"),
    ]
    assert {name for name, _ in headers} - {b"connection", b"upgrade"} <= HANDSHAKE_FIELDS


def test_check_accept_takes_a_plain_101() -> None:
    """Without subprotocol and extension there is nothing but the fields that may cross."""
    assert _check() == Accepted(None, None, [])


def test_check_accept_compares_upgrade_and_connection_without_case() -> None:
    """Names are case-insensitive, and Connection is a list."""
    headers = [
        (b"upgrade", b"WebSocket"),
        (b"connection", b"keep-alive, UPGRADE"),
        (b"sec-websocket-accept", b" " + _ACCEPT),
    ]

    assert check_accept(101, headers, _KEY, (), compression=False).headers == []


def test_check_accept_passes_what_may_cross_with_repeats_in_order() -> None:
    """Cookies and own fields cross; fields of this hop, and those Connection names, do not."""
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
        (b"", (), 200, "expected status 101, got 200"),
        (b"upgrade", (), 101, "Upgrade is missing"),
        (b"upgrade", ((b"upgrade", b"h2c"),), 101, "Upgrade is 'h2c'"),
        (b"connection", (), 101, "Connection is missing"),
        (b"connection", ((b"connection", b"close"),), 101, "without Upgrade"),
        (b"sec-websocket-accept", (), 101, "does not answer our key"),
        (b"", ((b"sec-websocket-accept", _ACCEPT),), 101, "does not answer our key"),
        (b"", ((b"sec-websocket-protocol", b"mqtt"),), 101, "'mqtt' was not offered"),
        (
            b"",
            ((b"sec-websocket-protocol", b"chat"), (b"sec-websocket-protocol", b"chat")),
            101,
            "'chat, chat' was not offered",
        ),
        (
            b"",
            ((b"sec-websocket-extensions", b"permessage-deflate"),),
            101,
            "extension 'permessage-deflate' was not offered",
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
        (b"permessage-deflate", Deflate()),
        (
            b"permessage-deflate; server_no_context_takeover;client_no_context_takeover",
            Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
        ),
        (
            b'Permessage-Deflate; server_max_window_bits=8; client_max_window_bits = "12", ',
            Deflate(server_max_window_bits=8, client_max_window_bits=12),
        ),
    ],
)
def test_check_accept_reads_the_agreed_compression(value: bytes, expected: Deflate) -> None:
    """The parameters of permessage-deflate are read as RFC 7692 writes them."""
    accepted = _check((b"sec-websocket-extensions", value), compression=True)

    assert accepted.deflate == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"x-webkit-deflate-frame", "was not offered"),
        (b"permessage-deflate, permessage-deflate", "was not offered"),
        (b"permessage-deflate; server_max_window_bits=16", "server_max_window_bits=16"),
        (b"permessage-deflate; client_max_window_bits=8", "client_max_window_bits=8"),
        (b"permessage-deflate; client_max_window_bits", "client_max_window_bits"),
        (b"permessage-deflate; server_no_context_takeover=1", "server_no_context_takeover=1"),
        (b"permessage-deflate; unknown", "unknown"),
        (
            b"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "repeated",
        ),
    ],
)
def test_check_accept_refuses_compression_that_cannot_be(value: bytes, says: str) -> None:
    """An extension, parameter or value that was not offered or is unknown is a fault."""
    with pytest.raises(UpstreamProtocolError, match=says):
        _check((b"sec-websocket-extensions", value), compression=True)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (999, False),
        (1000, True),
        (1003, True),
        (1004, False),
        (1005, False),
        (1006, False),
        (1007, True),
        (1014, True),
        (1015, False),
        (2999, False),
        (3000, True),
        (4999, True),
        (5000, False),
    ],
)
def test_may_be_sent_follows_the_registry(code: int, expected: bool) -> None:
    """Reserved and local codes never stand in a close frame."""
    assert may_be_sent(code) is expected


@pytest.mark.parametrize(
    ("code", "reason", "framed", "expected"),
    [
        (1000, "bye", True, Close(1000, "bye")),
        (1001, None, True, Close(1001, "")),
        (1012, None, False, Close(1012, "")),
        (3000, "", True, Close(3000, "")),
        (4999, "x", True, Close(4999, "x")),
        (1005, "", True, Close(None, "")),
        (1005, None, False, None),
        (1006, "", True, None),
        (1006, None, False, None),
        (1015, None, True, None),
        (2000, "odd", True, Close(1002, "odd")),
    ],
)
def test_close_upwards_tells_a_close_from_a_client_that_vanished(
    code: int, reason: str | None, framed: bool, expected: Close | None
) -> None:
    """Codes pass, an empty close stays empty, a lost connection is none."""
    assert close_upwards(code, reason, framed=framed) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1000, 1000), (1001, 1001), (1005, 1000), (1006, 1014), (1015, 1014), (4000, 4000), (0, 1014)],
)
def test_close_downwards_gives_a_code_that_may_be_sent(code: int, expected: int) -> None:
    """An empty close is 1000; a lost connection is a bad gateway, never a clean end."""
    assert close_downwards(code, "").code == expected


@given(st.text(max_size=200))
def test_close_reasons_are_cut_at_a_character(reason: str) -> None:
    """Whatever the text, it fits a control frame and is a start of what was given."""
    cut = close_downwards(4000, reason).reason

    assert len(cut.encode()) <= 123
    assert reason.encode("utf-8", "replace").decode().startswith(cut)
    assert len(cut) == len(reason) or len(cut.encode()) > 119


def test_close_reasons_are_cut_both_ways() -> None:
    """123 bytes are the limit, and a character across it goes whole."""
    reason = "a" + "é" * 100

    expected = "a" + "é" * 61
    assert close_upwards(4000, reason, framed=True) == Close(4000, expected)
    assert close_downwards(4000, reason) == Close(4000, expected)
