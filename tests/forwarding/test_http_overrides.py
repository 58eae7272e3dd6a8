"""A body given to ``forward`` is sent with its own length, type and framing."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, Response

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan
from tests.support.gateways import billing
from tests.support.http_client import Client, connect, request
from tests.support.origins import Headers, Received, ScriptedOrigin, chunk
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e


_CHUNKED = (b"Transfer-Encoding", b"chunked")
_DESCRIBING = {
    *(b"content-length", b"transfer-encoding", b"content-type", b"content-encoding"),
    *(b"content-md5", b"content-digest", b"repr-digest", b"digest"),
}


def _app(url: str, arguments: dict[str, Any]) -> FastAPI:
    """Make an app that forwards ``POST /x`` with these arguments."""
    app = FastAPI(lifespan=proxy_lifespan)
    upstream = Upstream(billing(url))

    @app.post("/x")
    async def x(request: Request, balancer: Balancer = Depends(upstream)) -> Response:
        return await balancer.forward(request, **arguments)

    return app


async def _arrives(sent: bytes, **arguments: Any) -> Received:
    """Give the request that reaches the origin; the client's connection must stay usable."""
    async with (
        ScriptedOrigin() as origin,
        run_app(_app(origin.url, arguments)) as running,
        connect(running.address) as client,
    ):
        await client.send(sent)
        assert (await client.read_response()).status == 200
        await _serves_on(client)
    return origin.requests[0]


async def _serves_on(client: Client) -> None:
    await client.send(request("GET", "/nowhere"))
    assert (await client.read_response()).status == 404


def _describing(received: Received) -> Headers:
    """The headers that describe the body."""
    return [(name, value) for name, value in received.headers if name in _DESCRIBING]


@pytest.mark.parametrize(
    ("body", "length", "media_type"),
    [
        (b"", b"0", b"application/octet-stream"),
        (b"ours", b"4", b"application/octet-stream"),
        ("né", b"3", b"text/plain; charset=utf-8"),
        ({"né": 1}, b"9", b"application/json"),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
async def test_given_body_has_its_own_length_and_type(
    framing: str, body: Any, length: bytes, media_type: bytes
) -> None:
    """The framing and encoding headers of the client's body are dropped."""
    encoded = [
        (b"Content-Encoding", b"gzip"),
        (b"Content-MD5", b"Q2hlY2sgSW50ZWdyaXR5IQ=="),
        (b"Content-Digest", b"sha-256=:d435Qo+nKZ+gLcUHn7GQtQ72hiBVAgqoLsZnZPiTGPk=:"),
        (b"Repr-Digest", b"sha-256=:d435Qo+nKZ+gLcUHn7GQtQ72hiBVAgqoLsZnZPiTGPk=:"),
        (b"Digest", b"md5=HUXZLQLMuI/KZ5KDcJPcOA=="),
    ]
    sent = {
        "length": request("POST", "/x", encoded, b"theirs"),
        "chunked": request("POST", "/x", [_CHUNKED, *encoded]) + chunk(b"theirs") + chunk(b""),
        "none": request("POST", "/x"),
    }[framing]
    received = await _arrives(sent, override_body=body)

    assert _describing(received) == [(b"content-length", length), (b"content-type", media_type)]
    assert len(received.body) == int(length)


async def test_given_body_keeps_the_clients_content_type() -> None:
    """A content-type that exists is not replaced."""
    sent = request("POST", "/x", [(b"Content-Type", b"application/x-ours+json")], b"theirs")
    received = await _arrives(sent, override_body={"a": 1})

    assert _describing(received) == [
        (b"content-type", b"application/x-ours+json"),
        (b"content-length", b"7"),
    ]


async def test_given_body_with_override_headers_has_a_type() -> None:
    """A type is added unless ``override_headers`` has one."""
    sent = request("POST", "/x", [(b"Content-Type", b"text/xml")], b"theirs")
    bare = await _arrives(sent, override_body="ours", override_headers={"x-a": "1"})
    named = await _arrives(
        sent, override_body="ours", override_headers={"content-type": "text/csv"}
    )

    assert _describing(bare)[-1] == (b"content-type", b"text/plain; charset=utf-8")
    assert _describing(named) == [(b"content-type", b"text/csv"), (b"content-length", b"4")]


@pytest.mark.parametrize("chunked", [False, True])
async def test_override_headers_keep_the_clients_framing(chunked: bool) -> None:
    """The body is still that of the client."""
    headers = [(b"Content-Type", b"text/xml")]
    if chunked:
        sent = request("POST", "/x", [_CHUNKED, *headers]) + chunk(b"theirs") + chunk(b"")
    else:
        sent = request("POST", "/x", headers, b"theirs")
    received = await _arrives(sent, override_headers={"x-a": "1"})

    framing = (b"transfer-encoding", b"chunked") if chunked else (b"content-length", b"6")
    assert _describing(received) == [framing]
    assert received.body == b"theirs"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_given_method_keeps_body_and_framing(chunked: bool, method: str) -> None:
    """Any method may have a body."""
    if chunked:
        sent = request("POST", "/x", [_CHUNKED]) + chunk(b"theirs") + chunk(b"")
    else:
        sent = request("POST", "/x", body=b"theirs")
    received = await _arrives(sent, method=method)

    assert (received.method, received.body) == (method.encode(), b"theirs")
    assert received.chunked is chunked


async def test_given_body_does_not_wait_for_the_clients() -> None:
    """A client that has sent one byte of many gets its response."""
    length = (b"Content-Length", b"1000000")
    async with (
        ScriptedOrigin() as origin,
        run_app(_app(origin.url, {"override_body": b"ours"})) as running,
    ):
        async with connect(running.address) as client:
            await client.send(request("POST", "/x", [length]) + b"t")
            begun = await client.read_response()
        async with connect(running.address) as client:
            await client.send(request("POST", "/x", [length, (b"Expect", b"100-continue")]))
            asking = await client.read_response()

    assert (begun.status, asking.status) == (200, 200)
    assert asking.informational == []
    assert [received.body for received in origin.requests] == [b"ours"] * 2
    assert [received.one(b"expect") for received in origin.requests] == [None] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "CONNECT"},
        {"method": "connect"},
        {"override_host": "a/b"},
        {"override_host": "user@a"},
        {"override_host": "a?b"},
        {"override_host": "a#b"},
        {"override_host": "a\\b"},
        {"override_host": "a\x7f"},
    ],
)
async def test_dangerous_method_or_host_is_a_value_error(arguments: dict[str, Any]) -> None:
    """CONNECT, or a Host that parsers may read differently."""
    async with ScriptedOrigin() as origin:
        app = _app(origin.url, arguments)
        async with app.router.lifespan_context(app):
            balancer = Upstream("billing").of(app)
            client_request = Request({"type": "http", "method": "POST", "path": "/x"})
            with pytest.raises(ValueError, match=r"method|override_host"):
                await balancer.forward(client_request, **arguments)

    assert origin.connections == 0


@pytest.mark.parametrize(
    "host", ["a", "a:8080", "[::1]:80", "shop_1.example", "xn--caf-dma.example"]
)
async def test_host_is_sent_as_given(host: str) -> None:
    """Names, addresses, ports."""
    received = await _arrives(request("POST", "/x", body=b"x"), override_host=host)

    assert received.all(b"host") == [host.encode()]
