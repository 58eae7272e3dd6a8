"""The request builder: headers, framing and overrides, from ASGI scopes.

Long because each header with a rule of its own has a test, all of the same few scopes.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_proxy_di.errors import InvalidRequest
from fastapi_proxy_di.forwarding.destination_transport import DestinationTransport
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.forwarding.request import RequestBuilder, split_query
from fastapi_proxy_di.forwarding.retry_loop import FRESH_SECONDS, outgoing_request
from fastapi_proxy_di.transport.protocol import Headers, Transport
from fastapi_proxy_di.wire.forwarded import Forwarding

HOST = (b"host", b"api.example")


def builder(**options: Any) -> RequestBuilder:
    """Make a builder that adds nothing by default."""
    given_options: dict[str, Any] = {
        "forwarding": Forwarding("off", (), rfc7239=False),
        "via": False,
        "preserve_host": False,
        "request_headers": [],
        "remove": frozenset(),
        "repeatable_methods": frozenset({"GET", "HEAD"}),
    }
    return RequestBuilder(**{**given_options, **options})


def scope(*headers: tuple[bytes, bytes], **fields: Any) -> dict[str, Any]:
    """Make the scope of a request."""
    return {
        "type": "http",
        "method": "GET",
        "query_string": b"",
        "headers": [HOST, *headers],
        "http_version": "1.1",
        "client": ("10.0.0.9", 5),
        "scheme": "https",
        **fields,
    }


def build(
    *headers: tuple[bytes, bytes],
    overrides: Overrides | None = None,
    options: dict[str, Any] | None = None,
    path: bytes = b"/x",
    **fields: Any,
) -> Exchange:
    """Build a request from a scope with these headers."""
    exchange = Exchange(scope(*headers, **fields), None, None, path, b"/billing", overrides)
    builder(**(options or {})).build(exchange)
    return exchange


def destination(host: bytes = b"d", base_path: bytes = b"") -> DestinationTransport:
    """Make the transport to a destination."""
    return DestinationTransport(cast("Transport", None), (b"host", host), base_path)


def test_plain_headers_are_forwarded_unchanged() -> None:
    """Order, repeats and bytes; Host is replaced by the destination's."""
    headers: Headers = [(b"x-a", b"1"), (b"cookie", b"a=b"), (b"x-a", b"\xe9"), (b"te", b"gzip")]
    exchange = build(*headers)

    assert exchange.headers == headers[:3]
    assert (exchange.method, exchange.target, exchange.query) == (b"GET", b"/x", b"")
    assert (exchange.host, exchange.length, exchange.chunked) == (None, None, False)
    assert not exchange.has_body


def test_nominated_headers_are_removed() -> None:
    """In any line of Connection; framing, Host and forwarding headers stay."""
    trusting = Forwarding("off", [], rfc7239=False)
    exchange = build(
        (b"connection", b"X-Gone, host"),
        (b"x-gone", b"1"),
        (b"content-length", b"0"),
        (b"connection", b"content-length, x-forwarded-for, transfer-encoding"),
        (b"x-stays", b"1"),
        options={"forwarding": trusting, "preserve_host": True},
    )

    assert exchange.headers == [(b"content-length", b"0"), (b"x-stays", b"1")]
    assert exchange.host == b"api.example"


def test_empty_connection_nominates_nothing() -> None:
    """Nor do commas."""
    assert build((b"connection", b" , "), (b"x", b"1")).headers == [(b"x", b"1")]


@pytest.mark.parametrize(
    ("headers", "length", "chunked", "has_body", "framing"),
    [
        ([], None, False, False, []),
        ([(b"content-length", b"0")], 0, False, False, [(b"content-length", b"0")]),
        ([(b"content-length", b"5")], 5, False, True, [(b"content-length", b"5")]),
        (
            [(b"content-length", b"5"), (b"content-length", b"5")],
            5,
            False,
            True,
            [(b"content-length", b"5")],
        ),
        (
            [(b"transfer-encoding", b"Chunked")],
            None,
            True,
            True,
            [(b"transfer-encoding", b"chunked")],
        ),
        (
            [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
            None,
            True,
            True,
            [(b"transfer-encoding", b"chunked")],
        ),
    ],
)
def test_request_has_exactly_one_framing(
    headers: Headers, length: int | None, chunked: bool, has_body: bool, framing: Headers
) -> None:
    """RFC 9112 section 6.3: a coding wins over a length."""
    exchange = build(*headers)

    assert (exchange.length, exchange.chunked, exchange.has_body) == (length, chunked, has_body)
    assert exchange.headers == framing


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"+5")],
        [(b"content-length", b"")],
        [(b"content-length", b"5, 5")],
        [(b"content-length", b"\xb2")],
        [(b"content-length", b"9" * 5000)],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"identity")],
        [(b"x a", b"1")],
        [(b"x\n", b"1")],
        [(b"", b"1")],
    ],
)
def test_malformed_headers_are_the_clients_fault(headers: Headers) -> None:
    """400, before anything is dialled."""
    with pytest.raises(InvalidRequest):
        build(*headers)


@pytest.mark.parametrize("path", [b"/..", b"/%2e%2e/x", b"/a/..%2f..%5cx"])
def test_climbing_path_is_refused(path: bytes) -> None:
    """Also where dot segments are allowed."""
    with pytest.raises(InvalidRequest, match="dot segments"):
        build(path=path)
    with pytest.raises(InvalidRequest, match="above"):
        build(path=path, options={"pass_dot_segments": True})
    with pytest.raises(InvalidRequest, match="above"):
        build(path=path, overrides=Overrides(path_given=True))


@pytest.mark.parametrize(
    ("version", "hosts", "valid"),
    [
        ("1.1", 1, True),
        ("1.1", 2, False),
        ("1.1", 0, False),
        ("1.0", 0, True),
        ("1.0", 2, False),
        ("2", 0, True),
        ("2", 2, True),
        (None, 0, True),
    ],
)
def test_number_of_hosts_depends_on_the_version(
    version: str | None, hosts: int, valid: bool
) -> None:
    """RFC 9112 section 3.2, RFC 9113 section 8.3.1."""
    fields: Any = {"headers": [HOST] * hosts, "http_version": version}
    if valid:
        assert build(**fields).headers == []
    else:
        with pytest.raises(InvalidRequest, match="Host"):
            build(**fields)


def test_http2_host_that_differs_from_the_authority_is_refused() -> None:
    """RFC 9113 section 8.3.1."""
    with pytest.raises(InvalidRequest, match="more than one Host"):
        build((b"host", b"other.example"), http_version="2")


def test_expectation_is_sent_with_a_body_only() -> None:
    """Another expectation is forwarded."""
    expect = (b"expect", b"100-Continue")
    with_body = build(expect, (b"content-length", b"5"))
    without = build(expect)
    other = build((b"expect", b"a"), (b"content-length", b"5"))

    assert with_body.expects_continue
    assert with_body.headers[-1] == (b"expect", b"100-continue")
    assert not without.expects_continue
    assert without.headers == []
    assert not other.expects_continue
    assert (b"expect", b"a") in other.headers


def test_te_trailers_is_sent_if_the_server_takes_trailers() -> None:
    """RFC 9110 section 10.1.4: with the Connection that nominates it."""
    extensions: dict[str, Any] = {"http.response.trailers": {}}
    headers = [(b"te", b"gzip, Trailers"), (b"connection", b"TE")]

    assert build(*headers, extensions=extensions).headers == [
        (b"te", b"trailers"),
        (b"connection", b"te"),
    ]
    assert build(*headers, extensions=None).headers == []
    assert build(*headers).headers == []


@pytest.mark.parametrize(
    ("version", "via"),
    [("1.0", b"1.0"), ("1.1", b"1.1"), ("2", b"2.0"), ("3", b"3.0"), ("9", None)],
)
def test_via_names_the_received_version(version: str, via: bytes | None) -> None:
    """RFC 9110 section 7.6.3; after the Via of earlier proxies."""
    exchange = build((b"via", b"1.1 a"), options={"via": True}, http_version=version)
    expected = [(b"via", b"1.1 a")]
    if via:
        expected.append((b"via", via + b" fastapi-proxy-di"))

    assert exchange.headers == expected


def test_forwarding_headers_are_made_of_the_scope() -> None:
    """Those of an untrusted peer are removed; the scope may lack client, scheme and method."""
    options = {"forwarding": Forwarding("set", (), rfc7239=False)}
    stated = build((b"X-Forwarded-For", b"6.6.6.6"), (b"forwarded", b"x"), options=options)
    bare = scope()
    for name in ("client", "scheme", "method", "http_version"):
        del bare[name]
    unknown = Exchange(bare, None, None, b"/x", b"")
    builder(**options).build(unknown)

    assert stated.headers == [
        (b"x-forwarded-for", b"10.0.0.9"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"api.example"),
        (b"x-forwarded-prefix", b"/billing"),
    ]
    assert unknown.headers == [
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"api.example"),
    ]


def test_settings_set_and_remove_headers() -> None:
    """Headers that the settings set replace the client's."""
    exchange = build(
        (b"x-key", b"forged"),
        (b"x-gone", b"1"),
        (b"x", b"1"),
        options={"request_headers": [(b"x-key", b"real")], "remove": frozenset({b"x-gone"})},
    )

    assert exchange.headers == [(b"x", b"1"), (b"x-key", b"real")]


def test_names_can_be_dropped() -> None:
    """As the handshake headers of a WebSocket."""
    exchange = Exchange(scope((b"sec-websocket-key", b"x"), (b"x", b"1")), None, None, b"/", b"")
    builder().build(exchange, drop=lambda name: name.startswith(b"sec-"))

    assert exchange.headers == [(b"x", b"1")]


@pytest.mark.parametrize("framing", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")])
def test_handshake_has_no_body(framing: tuple[bytes, bytes]) -> None:
    """Else the destination would take the tunnel's first bytes for a body."""
    headers = scope(framing, (b"expect", b"100-continue"), (b"x", b"1"))
    exchange = Exchange(headers, None, None, b"/", b"")
    builder().build(exchange, drop=lambda name: False)

    assert exchange.headers == [(b"x", b"1")]
    assert (exchange.length, exchange.chunked, exchange.has_body) == (None, False, False)
    assert not exchange.expects_continue


@pytest.mark.parametrize(
    ("headers", "fields", "overrides", "repeatable"),
    [
        ([], {}, None, True),
        ([], {"method": "POST"}, None, False),
        ([(b"idempotency-key", b"k")], {"method": "POST"}, None, True),
        # It does not leave, so the destination cannot know the repetition.
        (
            [(b"idempotency-key", b"k"), (b"connection", b"idempotency-key")],
            {"method": "POST"},
            None,
            False,
        ),
        ([(b"idempotency-key", b"k")], {"method": "POST"}, Overrides(replaced=[]), False),
        ([], {"method": "POST"}, Overrides(additional=[(b"idempotency-key", b"k")]), True),
        ([], {"method": "POST"}, Overrides(method=b"GET"), True),
        ([], {}, Overrides(method=b"POST"), False),
        ([], {"method": "PURGE"}, None, False),
    ],
)
def test_repeatable_depends_on_the_sent_request(
    headers: Headers, fields: dict[str, Any], overrides: Overrides | None, repeatable: bool
) -> None:
    """A listed method, or a key that is sent."""
    exchange = build(*headers, overrides=overrides, **fields)

    assert exchange.repeatable is repeatable
    idle = outgoing_request(exchange, destination(), 4.0).reuse_within
    assert idle == (4.0 if repeatable else FRESH_SECONDS)


class TestOverrides:
    """The arguments of ``forward``."""

    def test_additional_headers_are_set_by_name(self) -> None:
        """The client cannot forge them; they win over the settings."""
        exchange = build(
            (b"x-tenant", b"forged"),
            (b"x-tenant", b"twice"),
            overrides=Overrides(additional=[(b"x-tenant", b"acme"), (b"x-s", b"mine")]),
            options={"request_headers": [(b"x-s", b"setting")]},
        )

        assert exchange.headers == [(b"x-tenant", b"acme"), (b"x-s", b"mine")]

    def test_replaced_headers_are_sent_instead_of_the_clients(self) -> None:
        """Framing and expectation of the client's body stay."""
        exchange = build(
            (b"cookie", b"secret"),
            (b"content-length", b"5"),
            (b"expect", b"100-continue"),
            overrides=Overrides(replaced=[(b"a", b"b")], additional=[(b"c", b"d")]),
        )

        assert exchange.headers == [
            (b"a", b"b"),
            (b"content-length", b"5"),
            (b"expect", b"100-continue"),
            (b"c", b"d"),
        ]

    @pytest.mark.parametrize(
        "framing", [(b"content-length", b"99"), (b"transfer-encoding", b"chunked")]
    )
    def test_given_body_has_its_own_framing_and_type(self, framing: tuple[bytes, bytes]) -> None:
        """Length, encoding and expectation of the client's body are dropped."""
        exchange = build(
            framing,
            (b"content-encoding", b"gzip"),
            (b"expect", b"100-continue"),
            overrides=Overrides(body=b"{}", content_type=b"application/json"),
        )

        assert exchange.headers == [
            (b"content-length", b"2"),
            (b"content-type", b"application/json"),
        ]
        assert (exchange.length, exchange.chunked, exchange.has_body) == (2, False, True)
        assert not exchange.expects_continue

    def test_given_body_keeps_an_existing_type(self) -> None:
        """A content-type is added only if there is none."""
        exchange = build(
            (b"content-type", b"text/x"), overrides=Overrides(body=b"", content_type=b"text/y")
        )

        assert exchange.headers == [(b"content-type", b"text/x"), (b"content-length", b"0")]

    def test_replaced_headers_describe_the_given_body(self) -> None:
        """The caller's Content-Encoding is that of the given body."""
        overrides = Overrides(body=b"\x1f\x8b", replaced=[(b"content-encoding", b"gzip")])
        exchange = build((b"content-length", b"9"), overrides=overrides)

        assert exchange.headers == [(b"content-encoding", b"gzip"), (b"content-length", b"2")]

    def test_method_host_and_query_are_replaced(self) -> None:
        """Each replaces the client's."""
        overrides = Overrides(method=b"PATCH", host=b"other", forward_query=False)
        exchange = build(query_string=b"a=b", overrides=overrides, path=b"/x?own=1")

        assert (exchange.method, exchange.target, exchange.query) == (b"PATCH", b"/x", b"own=1")
        assert outgoing_request(exchange, destination(), 4.0).headers[0] == (b"host", b"other")


def test_request_is_for_one_destination() -> None:
    """Its Host is first, its base path in front of the path."""
    exchange = build((b"content-length", b"5"), query_string=b"q=%20")
    exchange.upgrade = True
    request = outgoing_request(exchange, destination(b"d", b"/base"), 4.0)

    assert request.target == b"/base/x?q=%20"
    assert request.headers == [(b"host", b"d"), (b"content-length", b"5")]
    assert (request.content_length, request.chunked, request.upgrade) == (5, False, True)


def test_frame_replaces_the_framing() -> None:
    """For a body whose length is known only later."""
    exchange = build((b"content-length", b"5"), (b"x", b"1"))
    builder().frame(exchange, 7)
    assert exchange.headers == [(b"x", b"1"), (b"content-length", b"7")]
    assert (exchange.length, exchange.chunked, exchange.has_body) == (7, False, True)

    builder().frame(exchange, None)
    assert exchange.headers == [(b"x", b"1"), (b"transfer-encoding", b"chunked")]
    assert (exchange.length, exchange.chunked) == (None, True)


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        (b"/a", b"q", (b"/a", b"q")),
        (b"/a?", b"q", (b"/a", b"q")),
        (b"/a?o", b"", (b"/a", b"o")),
        (b"/a?o?p", b"q", (b"/a", b"o?p&q")),
    ],
)
def test_split_query_puts_the_given_query_first(
    path: bytes, query: bytes, expected: tuple[bytes, bytes]
) -> None:
    """The client's follows."""
    assert split_query(path, query) == expected


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"connection", b"x-a", b"te", b"upgrade", b"keep-alive", b"content-length",
                 b"transfer-encoding", b"x-forwarded-for", b"proxy-authorization", b"host"]
            ),
            st.sampled_from([b"x-a", b"close", b"5", b"chunked", b"te, x-a", b"content-length"]),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_hop_by_hop_headers_are_never_sent(headers: Headers) -> None:
    """Any combination is refused, or sent with one framing and without them."""
    try:
        exchange = build(*headers)
    except InvalidRequest:
        return
    names = [name for name, _ in exchange.headers]

    assert not {b"connection", b"te", b"upgrade", b"keep-alive", b"host"} & set(names)
    assert not {b"x-forwarded-for", b"proxy-authorization"} & set(names)
    assert sum(name in {b"content-length", b"transfer-encoding"} for name in names) <= 1


@pytest.mark.parametrize("version", ["2", "3"])
def test_cookie_crumbs_of_newer_versions_are_joined(version: str) -> None:
    """RFC 9113 section 8.2.3 and RFC 9114 section 4.2.1; most servers leave that to the app."""
    crumbs: Headers = [(b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2")]

    assert build(*crumbs, http_version=version).headers == [
        (b"cookie", b"a=1; b=2"),
        (b"x-a", b"1"),
    ]
    assert build(*crumbs).headers == crumbs
