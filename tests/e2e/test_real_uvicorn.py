"""The gateway in front of a real uvicorn: the app behind it gets the client's request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from tests.support.gateways import gateway
from tests.support.http_client import Ending, RawResponse, connect, fetch, request
from tests.support.origins import chunk
from tests.support.servers import Running, run_app

pytestmark = pytest.mark.e2e


async def _mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the received request as JSON; ignore the lifespan."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    seen = {
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.decode("latin-1"),
    }
    headers = [(b"set-cookie", b"a=1"), (b"x-a", b"caf\xe9"), (b"set-cookie", b"b=2")]
    # Without a length uvicorn sends chunks.
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


@pytest.fixture(params=["httptools", "h11"])
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """Run uvicorn with one of its two HTTP parsers."""
    async with run_app(_mirror, http=request.param) as running:
        yield running


async def _through(upstream: Running, sent: bytes) -> RawResponse:
    async with gateway(upstream.url) as gate, connect(gate.address) as client:
        await client.send(sent)
        return await client.read_response()


@pytest.mark.parametrize(
    "path",
    [
        "/a%2Fb",
        "/a%20b",
        "/a%3Fb",
        "/a%00b",
        "/a%0Ab",
        "//x",
        "/a//b//",
        "/a;v=1/b;w",
        "/.a/b../%2eb",
        "/caf%C3%A9",
        "/%FF",
    ],
)
async def test_uvicorn_gets_the_raw_path(upstream: Running, path: str) -> None:
    """The raw path and the query are those of the client."""
    sent = request(target=f"/billing{path}?q=%20+&q=&q;%zz")
    seen = (await _through(upstream, sent)).json()

    assert (seen["path"], seen["query"]) == (path, "q=%20+&q=&q;%zz")


async def test_headers_keep_order_and_repeats_both_ways(upstream: Running) -> None:
    """Request and response headers keep their order, repeats and bytes."""
    pairs = [(b"x-b", b"1"), (b"cookie", b"a=1"), (b"x-b", b"caf\xe9"), (b"cookie", b"b=2")]
    reply = await _through(upstream, request(target="/billing/x", headers=pairs))

    headers: list[list[str]] = reply.json()["headers"]
    assert [one for one in headers if one[0] in ("x-b", "cookie")] == [
        [name.decode(), value.decode("latin-1")] for name, value in pairs
    ]
    assert reply.all(b"set-cookie") == [b"a=1", b"b=2"]
    assert reply.one(b"x-a") == b"caf\xe9"
    assert reply.one(b"server") == b"uvicorn"
    assert reply.ending is Ending.LAST_CHUNK


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_uvicorn_gets_the_body_and_its_framing(
    upstream: Running, chunked: bool, method: str
) -> None:
    """A length stays a length, chunks stay chunks."""
    if chunked:
        sent = request(method, "/billing/x", [(b"Transfer-Encoding", b"chunked")])
        sent += chunk(b"hel") + chunk(b"lo") + chunk(b"")
    else:
        sent = request(method, "/billing/x", body=b"hello")
    seen: dict[str, Any] = (await _through(upstream, sent)).json()

    framing = [one for one in seen["headers"] if one[0] in ("content-length", "transfer-encoding")]
    assert (seen["method"], seen["body"]) == (method, "hello")
    assert framing == [["transfer-encoding", "chunked"] if chunked else ["content-length", "5"]]


async def test_response_to_head_of_uvicorn_has_no_body(upstream: Running) -> None:
    """The connection can be used again."""
    async with gateway(upstream.url) as gate:
        head = await fetch(gate.address, "HEAD", "/billing/x")
        reply = await fetch(gate.address, target="/billing/x")

    assert (head.status, head.ending, reply.status) == (200, Ending.NO_BODY, 200)
