"""Trailers reach the client if the server offers the extension."""

import pytest

from tests.forwarding.asgi_server import asgi_gateway
from tests.support.origins import ScriptedOrigin, always, chunk, response_bytes

EXTENSIONS = ["http.response.trailers"]
TRAILERS = b"X-Sum: 1\r\nHost: evil.test\r\nSet-Cookie: a=1\r\nX-Sum: 2\r\nConnection: x\r\n"


def _response(trailer: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\n"
        + trailer
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + chunk(b"hello")
        + b"0\r\n"
        + TRAILERS
        + b"\r\n"
    )


@pytest.mark.parametrize("middlewares", [0, 1])
async def test_trailers_follow_the_body(middlewares: int) -> None:
    """In order, without framing and routing (RFC 9110 section 6.5.1)."""
    async with (
        ScriptedOrigin(always(_response(b"Trailer: X-Sum\r\n"))) as origin,
        asgi_gateway(origin.url, middlewares=middlewares, extensions=EXTENSIONS) as server,
    ):
        messages = await server.get()

    start = messages[0]
    assert (b"trailer", b"X-Sum") in start["headers"]
    assert b"".join(message.get("body", b"") for message in messages) == b"hello"
    if not middlewares:  # Starlette's drops them
        assert start["trailers"] is True
        assert messages[-1] == {
            "type": "http.response.trailers",
            "headers": [(b"x-sum", b"1"), (b"x-sum", b"2")],
        }


async def test_trailers_that_were_not_announced_are_dropped() -> None:
    """ASGI needs the announcement before the body."""
    async with (
        ScriptedOrigin(always(_response(b""))) as origin,
        asgi_gateway(origin.url, extensions=EXTENSIONS) as server,
    ):
        messages = await server.get()
    assert "trailers" not in messages[0]
    assert server.types[-1] == "body"


async def test_trailers_are_dropped_without_the_extension() -> None:
    """They are not announced either."""
    async with (
        ScriptedOrigin(always(_response(b"Trailer: X-Sum\r\n"))) as origin,
        asgi_gateway(origin.url, extensions=[]) as server,
    ):
        messages = await server.get()
    assert all(name != b"trailer" for name, _ in messages[0]["headers"])
    assert server.types[-1] == "body"


async def test_headers_of_a_second_response_are_no_trailers() -> None:
    """A response without a request ends its connection, and nothing of it is forwarded."""
    good = response_bytes(body=b"hello", headers=[(b"Trailer", b"X-Sum")])
    surplus = b"HTTP/1.1 200 OK\r\nX-Sum: 666\r\n\r\n"
    async with (
        ScriptedOrigin(always(good + surplus)) as origin,
        asgi_gateway(origin.url, extensions=EXTENSIONS) as server,
    ):
        messages = await server.get()

    assert b"".join(message.get("body", b"") for message in messages) == b"hello"
    assert messages[-1] == {"type": "http.response.trailers", "headers": []}
