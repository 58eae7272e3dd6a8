"""Forwarding headers: set, appended, trusted and removed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from fastapi_proxy_di.wire.forwarded import Forwarding, Mode, element
from fastapi_proxy_di.wire.headers import Headers

NETWORKS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
HOST = b"api.example"
STATED: Headers = [
    (b"x-forwarded-for", b"10.0.0.9"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", HOST),
    (b"x-forwarded-prefix", b"/billing"),
]
RECEIVED: Headers = [
    (b"x-forwarded-for", b"1.2.3.4"),
    (b"x-real-ip", b"1.2.3.4"),
    (b"x-forwarded-for", b"5.6.7.8"),
    (b"x-forwarded-proto", b"http"),
    (b"x-forwarded-host", b"outer.example"),
    (b"x-forwarded-prefix", b"/outer/"),
    (b"x-forwarded-port", b"8443"),
    (b"forwarded", b"for=1.2.3.4"),
]


def headers_sent(
    mode: Mode,
    received: Headers,
    *,
    peer: str | None = "10.0.0.9",
    trusted: bool = True,
    rfc7239: bool = False,
    scheme: str = "https",
    host: bytes | None = HOST,
    prefix: bytes = b"/billing",
) -> Headers:
    """Give the forwarding headers that are sent for one request."""
    forwarding = Forwarding(mode, NETWORKS if trusted else [], rfc7239=rfc7239)
    return list(forwarding.headers(peer, scheme, host, prefix, received))


@pytest.mark.parametrize("mode", ["set", "append"])
@pytest.mark.parametrize("received", [[], RECEIVED])
def test_headers_of_an_untrusted_peer_are_replaced(mode: Mode, received: Headers) -> None:
    """In every mode."""
    assert headers_sent(mode, received, trusted=False) == STATED


def test_off_adds_nothing() -> None:
    """Headers of an untrusted peer are removed, those of a trusted peer stay."""
    assert headers_sent("off", RECEIVED, trusted=False) == []
    assert headers_sent("off", RECEIVED) == RECEIVED
    assert headers_sent("off", []) == []


def test_set_replaces_the_headers_of_a_trusted_peer() -> None:
    """Names that the proxy does not set are forwarded."""
    sent = headers_sent("set", RECEIVED)

    assert sorted(sent) == sorted(
        [
            (b"x-real-ip", b"1.2.3.4"),
            (b"x-forwarded-port", b"8443"),
            (b"forwarded", b"for=1.2.3.4"),
            *STATED,
        ]
    )


def test_set_with_rfc7239_gives_one_element() -> None:
    """``Forwarded`` of the peer is replaced."""
    sent = headers_sent("set", RECEIVED, rfc7239=True)

    assert [value for name, value in sent if name == b"forwarded"] == [
        b"for=10.0.0.9;host=api.example;proto=https"
    ]


def test_append_extends_a_trusted_peer() -> None:
    """Addresses are joined in one header; scheme and host of the first hop stay."""
    sent = dict(headers_sent("append", RECEIVED))

    assert sent == {
        b"x-real-ip": b"1.2.3.4",
        b"x-forwarded-port": b"8443",
        b"x-forwarded-for": b"1.2.3.4, 5.6.7.8, 10.0.0.9",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"outer.example",
        b"x-forwarded-prefix": b"/outer/billing",
        b"forwarded": b"for=1.2.3.4",
    }


def test_append_with_rfc7239_adds_an_element() -> None:
    """After the elements of the peer."""
    sent = dict(headers_sent("append", RECEIVED, rfc7239=True))

    assert sent[b"forwarded"] == b"for=1.2.3.4, for=10.0.0.9;host=api.example;proto=https"


def test_append_adds_headers_that_the_peer_did_not_send() -> None:
    """The peer sent only ``X-Forwarded-For``."""
    sent = headers_sent("append", [(b"x-forwarded-for", b"1.2.3.4")])

    assert sent == [(b"x-forwarded-for", b"1.2.3.4, 10.0.0.9"), *STATED[1:]]


@pytest.mark.parametrize("mode", ["set", "append"])
def test_headers_written_with_underscores_do_not_stand_beside_ours(mode: Mode) -> None:
    """CGI and WSGI would read both as one; a trusted peer's other headers stay."""
    received = [(b"x_forwarded_for", b"6.6.6.6"), (b"x_forwarded_port", b"8443")]

    assert headers_sent(mode, received) == [received[1], *STATED]
    assert headers_sent(mode, received, trusted=False) == STATED


def test_append_leaves_out_empty_elements() -> None:
    """A peer with empty headers counts as one that sent none (RFC 9110 section 5.6.1.1)."""
    names = ("for", "proto", "host", "prefix")
    empty = [(b"x-forwarded-" + name.encode(), b" ,") for name in names]

    assert headers_sent("append", [*empty, (b"forwarded", b"")]) == STATED


def test_append_without_host_prefix_and_known_scheme() -> None:
    """The address is appended, and no other header."""
    sent = headers_sent(
        "append", [(b"x-real-ip", b"1.2.3.4")], scheme="gopher", host=None, prefix=b""
    )

    assert sent == [(b"x-real-ip", b"1.2.3.4"), (b"x-forwarded-for", b"10.0.0.9")]


def test_peer_without_address_is_not_trusted() -> None:
    """A unix socket has no address: no ``X-Forwarded-For`` is made."""
    sent = headers_sent("append", RECEIVED, peer=None, host=None, prefix=b"", rfc7239=True)

    assert sent == [(b"x-forwarded-proto", b"https"), (b"forwarded", b"for=unknown;proto=https")]


@pytest.mark.parametrize(
    ("scheme", "proto"),
    [("http", b"http"), ("https", b"https"), ("ws", b"http"), ("wss", b"https"), ("x", None)],
)
def test_proto_is_http_or_https(scheme: str, proto: bytes | None) -> None:
    """``ws`` becomes ``http``, ``wss`` becomes ``https``."""
    assert dict(headers_sent("set", [], scheme=scheme)).get(b"x-forwarded-proto") == proto


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("fd00::1", True),
        ("fd00::1%eth0", True),
        ("fe80::1", False),
        ("testclient", False),
        ("", False),
        (None, False),
    ],
)
def test_trust_is_by_network(peer: str | None, trusted: bool) -> None:
    """IPv4 addresses mapped to IPv6 and zones are recognised."""
    assert Forwarding("set", NETWORKS, rfc7239=False).trusts(peer) is trusted
    assert not Forwarding("set", [], rfc7239=False).trusts(peer)


@pytest.mark.parametrize(
    ("peer", "scheme", "host", "expected"),
    [
        ("1.2.3.4", "https", b"a.b", b"for=1.2.3.4;host=a.b;proto=https"),
        ("::1", "http", b"a:80", b'for="[::1]";host="a:80";proto=http'),
        (None, "ws", None, b"for=unknown;proto=http"),
        ("1.2.3.4", "x", b'a"\\b', b'for=1.2.3.4;host="a\\"\\\\b"'),
    ],
)
def test_element_quotes_values_that_are_not_tokens(
    peer: str | None, scheme: str, host: bytes | None, expected: bytes
) -> None:
    """RFC 7239 section 4: IPv6 in brackets and quotes, ports quoted."""
    assert element(peer, scheme, host) == expected


def test_peer_outside_latin_1_does_not_raise() -> None:
    """A server may give any text as the client's address."""
    sent = dict(headers_sent("set", [], peer="sömething→", trusted=False, rfc7239=True))

    assert sent[b"x-forwarded-for"] == b"s\xf6mething?"
