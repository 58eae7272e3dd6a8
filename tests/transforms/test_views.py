"""The requests and responses that transforms get, and what they may not write."""

from typing import Any

import pytest

from fastapi_proxy_di import InvalidRequest
from tests.transforms.views import inbound, outbound, response


def test_inbound_is_the_clients_request() -> None:
    """Path and query are raw."""
    request = inbound(
        b"/%2F\xe4",
        headers=[(b"x-a", b"1"), (b"host", b"gateway.test"), (b"x-a", b"\xe4")],
        query_string=b"a=%20",
        path_params={"tenant": "acme"},
    )

    assert (request.method, request.path, request.query) == ("GET", "/%2F\xe4", "a=%20")
    assert (request.mount, request.client) == ("/billing", "192.0.2.7")
    assert request.path_params == {"tenant": "acme"}
    assert request.headers["Host"] == "gateway.test"
    assert request.headers.getlist("X-A") == ["1", "\xe4"]
    assert request.headers.get("x-b", "none") == "none"
    assert not request.is_websocket


def test_inbound_of_a_websocket() -> None:
    """The scope has no method; on a unix socket there is no peer."""
    scope: dict[str, Any] = {
        "type": "websocket",
        "query_string": b"",
        "headers": [],
        "client": None,
    }
    request = type(inbound())(scope, b"", b"")

    assert request.is_websocket
    assert (request.method, request.client, request.path_params) == ("GET", None, {})


def test_headers_are_set_appended_and_removed() -> None:
    """By name in any case; order and repeats stay."""
    request = outbound(headers=[(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")])
    request.headers["X-B"] = "4"
    request.headers.append("X-A", "\xe4")
    assert request.headers.raw == [
        (b"x-a", b"1"),
        (b"x-a", b"3"),
        (b"x-b", b"4"),
        (b"x-a", b"\xe4"),
    ]
    del request.headers["x-A"]
    del request.headers["x-none"]
    assert request.headers.raw == [(b"x-b", b"4")]
    assert "x-b" in request.headers
    assert "x-a" not in request.headers
    with pytest.raises(KeyError, match="x-a"):
        request.headers["x-a"]


def test_repr_of_headers_shows_no_value() -> None:
    """A repr may be logged."""
    assert repr(outbound(headers=[(b"x-key", b"s3cret")]).headers) == "<EditableFields x-key>"
    assert "s3cret" not in repr(inbound(headers=[(b"x-key", b"s3cret")]).headers)


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "connection",
        "upgrade",
        "te",
        "expect",
        "via",
        "forwarded",
        "x-real-ip",
        "proxy-authorization",
        "sec-websocket-key",
    ],
)
def test_request_headers_of_the_proxy_are_refused(name: str) -> None:
    """Framing, host, hop-by-hop, forwarding and handshake headers."""
    headers = outbound(headers=[(name.lower().encode(), b"1")]).headers
    with pytest.raises(ValueError, match="set by the proxy"):
        headers[name] = "2"
    with pytest.raises(ValueError, match="set by the proxy"):
        headers.append(name, "2")
    with pytest.raises(ValueError, match="set by the proxy"):
        del headers[name]
    assert headers.raw == [(name.lower().encode(), b"1")]


def test_forwarding_headers_are_refused() -> None:
    """A transform may not state the client's address."""
    with pytest.raises(ValueError, match="set by the proxy"):
        outbound().headers["X-Forwarded-For"] = "192.0.2.1"


@pytest.mark.parametrize("name", ["content-length", "transfer-encoding", "connection", "trailer"])
def test_response_headers_that_frame_are_refused(name: str) -> None:
    """Framing headers of a response."""
    with pytest.raises(ValueError, match="set by the proxy"):
        response().headers[name] = "1"


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\0b"])
def test_header_value_with_a_line_break_is_refused(value: str) -> None:
    """The message does not show the value."""
    with pytest.raises(ValueError, match="CR, LF or NUL") as caught:
        outbound().headers["x-a"] = value
    assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["x a", "x:", "", "x\r\n"])
def test_header_name_that_is_not_a_token_is_refused(name: str) -> None:
    """RFC 9110 section 5.6.2."""
    with pytest.raises(ValueError, match="not a header name"):
        outbound().headers[name] = "1"


def test_keep_only_keeps_headers_set_by_the_proxy() -> None:
    """An allow-list cannot remove the framing."""
    headers = outbound(
        headers=[(b"content-length", b"3"), (b"cookie", b"a=1"), (b"accept", b"*/*")]
    ).headers
    headers.keep_only(frozenset({b"accept"}))
    assert headers.raw == [(b"content-length", b"3"), (b"accept", b"*/*")]


def test_path_is_raw() -> None:
    """Percent-encoding and bytes outside ASCII stay."""
    request = outbound(b"/%2F\xe4;a")
    request.path = "/v2" + request.path
    assert request.raw_path == b"/v2/%2F\xe4;a"
    assert request.path == "/v2/%2F\xe4;a"


@pytest.mark.parametrize("path", ["", "x", "?a", "/a b", "/a?b", "/a\r\n", "http://evil.test/"])
def test_malformed_path_is_refused(path: str) -> None:
    """A path starts with a slash and has no query, space or control character."""
    request = outbound()
    with pytest.raises(ValueError, match="must start with '/'"):
        request.path = path
    assert request.path == "/x"


@pytest.mark.parametrize("path", ["/..", "/a/../../b", "/%2e%2e/b", "/a%2F..%2F..%2Fb"])
def test_path_that_climbs_raises_invalid_request(path: str) -> None:
    """A client must not leave the prefix that a transform sets."""
    with pytest.raises(InvalidRequest):
        outbound().path = path


def test_query_is_changed_by_name_or_whole() -> None:
    """One parameter or the whole query."""
    request = outbound(query=b"a=1&b=%2f")
    request.set_query("c", "x y")
    request.remove_query("a")
    assert request.query == "b=%2f&c=x%20y"
    request.query = "raw=1"
    assert request.raw_query == b"raw=1"
    with pytest.raises(ValueError, match="percent-encoded"):
        request.query = "a b"


def test_method_is_a_token() -> None:
    """CONNECT is refused, too."""
    request = outbound()
    request.method = "PROPFIND"
    assert (request.method, request.raw_method) == ("PROPFIND", b"PROPFIND")
    for method in ("CONNECT", "A B", ""):
        with pytest.raises(ValueError, match="cannot be sent"):
            request.method = method


def test_method_of_a_websocket_stays() -> None:
    """RFC 6455 section 4.1: a handshake is a GET."""
    request = outbound(type="websocket")
    request.method = "GET"
    with pytest.raises(ValueError, match="WebSocket"):
        request.method = "POST"


def test_status_is_read_only() -> None:
    """Transforms cannot change the status."""
    given = response(404)
    assert given.status == 404
    with pytest.raises(AttributeError):
        given.status = 200  # type: ignore[misc]
