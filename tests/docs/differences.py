"""What the migration page says of both libraries, seen in front of scripted destinations.

Each scenario is a row of the page's last table. It runs a gateway, given as a ``Front``, and gives
words that the cell of that gateway's column has.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from fastapi import FastAPI, WebSocket
from starlette.responses import Response

from tests.support.http_client import RawResponse, connect, fetch
from tests.support.origins import Connection, Received, ScriptedOrigin, always, response_bytes
from tests.support.servers import Running, dead_port, run_app
from tests.support.websocket_client import WebSocketClient, shake_hands

__all__ = ["SCENARIOS", "Front"]

Front = Callable[..., AbstractAsyncContextManager[Running]]
"""Runs a gateway in front of a URL. Keywords: ``timeout``, and ``checked`` for health probes."""

Scenario = Callable[[Front], Awaitable[str]]

_SILENCE_SECONDS: Final = 0.3


async def _seen(
    front: Front,
    path: str = "/",
    *,
    method: str = "GET",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: bytes | None = None,
    reply: tuple[tuple[bytes, bytes], ...] = (),
    content: bytes = b"hello",
) -> tuple[Received | None, RawResponse]:
    """Send one request; give what reached the destination, and what came back."""
    script = always(response_bytes(200, content, reply))
    async with ScriptedOrigin(script) as origin, front(origin.url) as gateway:
        response = await fetch(gateway.address, method, path, headers, body)
        return (origin.requests[-1] if origin.requests else None), response


async def _sent(front: Front, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Received:
    received, _ = await _seen(front, headers=headers)
    assert received is not None
    return received


async def _silent(connection: Connection) -> None:
    await connection.read_request()
    await asyncio.Event().wait()


async def refused(front: Front) -> str:
    """Nothing listens."""
    async with front(f"http://127.0.0.1:{dead_port()}") as gateway:
        return str((await fetch(gateway.address)).status)


async def unanswered(front: Front) -> str:
    """The destination reads the request and sends nothing."""
    async with (
        ScriptedOrigin(_silent) as origin,
        front(origin.url, timeout=_SILENCE_SECONDS) as gateway,
    ):
        return str((await fetch(gateway.address)).status)


async def forwarding(front: Front) -> str:
    """A client says that it stands for 192.0.2.1."""
    received = await _sent(
        front, ((b"x-forwarded-for", b"192.0.2.1"), (b"x-real-ip", b"192.0.2.1"))
    )
    named = received.all(b"x-forwarded-for")
    real = received.all(b"x-real-ip")
    return {
        (2, 2): "sent, beside its own",
        (1, 1): "sent, and none of its own",
        (1, 0): "replaced",
    }[len(named), len(real)]


async def connection_options(front: Front) -> str:
    """``Connection`` names a header of this hop."""
    received = await _sent(front, ((b"connection", b"keep-alive, x-hop"), (b"x-hop", b"1")))
    return "sent" if received.all(b"x-hop") else "removed"


async def repeated(front: Front) -> str:
    """A header with two values."""
    received = await _sent(front, ((b"x-two", b"1"), (b"x-two", b"2")))
    return {b"1": "the first", b"1 2": "both"}[b" ".join(received.all(b"x-two"))]


async def body_of_get(front: Front) -> str:
    """Three methods whose requests seldom have a body."""
    bodies = []
    for method in ("GET", "HEAD", "OPTIONS"):
        received, _ = await _seen(front, method=method, body=b"12")
        assert received is not None
        bodies.append(received.body)
    return {b"": "lost", b"121212": "sent"}[b"".join(bodies)]


async def escaped_path(front: Front) -> str:
    """A slash that is data, and an empty segment."""
    received, _ = await _seen(front, "/a%2Fb//c")
    assert received is not None
    return f"`{received.target.decode()}`"


async def dot_segments(front: Front) -> str:
    """A path that leads up."""
    received, response = await _seen(front, "/x/../y")
    return f"`{received.target.decode()}`" if received else str(response.status)


async def added_headers(front: Front) -> str:
    """A request without the headers that most clients send."""
    names = (await _sent(front)).names
    by_httpx = {b"accept", b"accept-encoding", b"user-agent"} & set(names)
    return {(3, False): "added", (0, True): "not added; `Via` is"}[len(by_httpx), b"via" in names]


async def cookies(front: Front) -> str:
    """Three cookies in one response."""
    _, response = await _seen(front, reply=tuple((b"set-cookie", b"%d=1" % n) for n in range(3)))
    return {1: "joined into one", 3: "three"}[len(response.all(b"set-cookie"))]


async def cookie_of_another(front: Front) -> str:
    """One client gets a cookie; another client sends a request."""
    script = always(response_bytes(200, b"", [(b"set-cookie", b"session=1; Path=/")]))
    async with ScriptedOrigin(script) as origin, front(origin.url) as gateway:
        await fetch(gateway.address)
        await fetch(gateway.address)
        leaked = origin.requests[-1].all(b"cookie")
    return {(b"session=1",): "sent with other", (): "goes to its client alone"}[tuple(leaked)]


async def content_encoding(front: Front) -> str:
    """A compressed response."""
    encoding = ((b"content-encoding", b"gzip"),)
    _, response = await _seen(front, reply=encoding, content=gzip.compress(b"hello"))
    plain = response.body == b"hello"
    return {
        ((b"gzip",), False): "as the upstream's",
        ((), True): "removed, the body is decoded",
    }[tuple(response.all(b"content-encoding")), plain]


async def content_length(front: Front) -> str:
    """A response of five bytes."""
    _, response = await _seen(front)
    return {(b"5",): "as the upstream's", (): "removed"}[tuple(response.all(b"content-length"))]


async def cache_control(front: Front) -> str:
    """A response that may be kept for a minute."""
    _, response = await _seen(front, reply=((b"cache-control", b"max-age=60"),))
    return {
        (b"max-age=60",): "as the upstream's",
        (b"max-age=60", b"no-cache"): "`no-cache` is added",
    }[tuple(response.all(b"cache-control"))]


async def accel_buffering(front: Front) -> str:
    """A response without the header."""
    _, response = await _seen(front)
    return {(b"no",): "`no`", (): "as the upstream's"}[tuple(response.all(b"x-accel-buffering"))]


async def server_headers(front: Front) -> str:
    """The destination sends ``Date`` and ``Server``, as the server of the gateway does."""
    _, response = await _seen(front, reply=((b"date", b"yesterday"), (b"server", b"origin")))
    both = (len(response.all(b"date")), len(response.all(b"server")))
    return {(2, 2): "sent beside the server's", (1, 1): "removed"}[both]


async def location(front: Front) -> str:
    """A redirect by a path, for a request below the prefix."""
    _, response = await _seen(front, "/shop/cart", reply=((b"location", b"/login"),))
    value = response.one(b"location")
    assert value is not None
    return f"`{value.decode()}`"


def _live() -> FastAPI:
    app = FastAPI()

    @app.websocket("/refused")
    async def refused(websocket: WebSocket) -> None:
        await websocket.send_denial_response(Response("no", 418))

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        offered = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol=offered[0] if offered else None)
        await websocket.send_text(websocket.headers.get("authorization", "none"))
        await websocket.close(4001)

    return app


async def _dialled(gateway: Running, path: str = "/live", *, offers: bool = True) -> str:
    """Give the status of a refusal, or the first message and the code of the close."""
    async with connect(gateway.address) as client:
        response = await shake_hands(
            client,
            path,
            [(b"authorization", b"secret")],
            subprotocols=["v1"] if offers else [],
        )
        if response.status != 101:
            return str(response.status)
        websocket = WebSocketClient(client, response)
        message = await websocket.recv()
        return f"{message!r} {(await websocket.ended()).code}"


async def _on_live(front: Front, path: str = "/live", *, offers: bool = True) -> str:
    async with run_app(_live()) as origin, front(origin.url) as gateway:
        return await _dialled(gateway, path, offers=offers)


async def handshake_headers(front: Front) -> str:
    """The client sends credentials."""
    return "not sent" if (await _on_live(front)).startswith("'none'") else "sent"


async def refused_handshake(front: Front) -> str:
    """The destination refuses with 418."""
    status = await _on_live(front, "/refused")
    return "the upstream's own response" if status == "418" else status


async def unreachable_handshake(front: Front) -> str:
    """Nothing listens."""
    async with front(f"http://127.0.0.1:{dead_port()}") as gateway:
        return await _dialled(gateway)


async def no_subprotocol(front: Front) -> str:
    """The client offers none."""
    seen = await _on_live(front, offers=False)
    return "connected" if " " in seen else seen


async def close_code(front: Front) -> str:
    """The destination closes with 4001."""
    return (await _on_live(front)).rpartition(" ")[2]


async def none_healthy_handshake(front: Front) -> str:
    """The only destination fails its probe."""
    async with front(f"http://127.0.0.1:{dead_port()}", checked=True) as gateway:
        return await _dialled(gateway)


SCENARIOS: Final[dict[str, Scenario]] = {
    "The connection is refused or breaks": refused,
    "No response in time": unanswered,
    "The client's `X-Forwarded-*` and `X-Real-IP`": forwarding,
    "Headers that `Connection` names": connection_options,
    "A request header that is sent twice": repeated,
    "Body of `GET`, `HEAD` and `OPTIONS`": body_of_get,
    "Path `/a%2Fb//c`": escaped_path,
    "Path `/x/../y`": dot_segments,
    "`Accept`, `Accept-Encoding` and `User-Agent` that the client did not send": added_headers,
    "Three `Set-Cookie`": cookies,
    "A cookie with `Path=/`": cookie_of_another,
    "`Content-Encoding`": content_encoding,
    "`Content-Length` of the response": content_length,
    "`Cache-Control`": cache_control,
    "`X-Accel-Buffering`": accel_buffering,
    "`Date` and `Server` of the upstream": server_headers,
    "`Location: /login` behind the prefix `/shop`": location,
    "The client's headers of a WebSocket": handshake_headers,
    "WebSocket: the upstream refuses": refused_handshake,
    "WebSocket: no connection": unreachable_handshake,
    "WebSocket: the client offers no subprotocol": no_subprotocol,
    "WebSocket: the upstream closes with 4001": close_code,
    "WebSocket: no healthy destination": none_healthy_handshake,
}
"""The scenario of each row of the page's table of differences."""
