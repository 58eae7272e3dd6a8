"""Bare ASGI app without framework or upstream: the floor, and the origin of streams and tunnels.

Responds to `/upload` with the number of body bytes, to `/sse` with paced timestamped events, and
to everything else with a constant; sends WebSocket messages back.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from tests.benchmarks.wire_format import CONSTANT, event_bytes

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(CONSTANT)).encode()),
]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one connection scope."""
    if scope["type"] == "http":
        path = scope["path"]
        if path == "/upload":
            await _upload(receive, send)
        elif path == "/sse":
            await _events(scope, send)
        else:
            await _constant(receive, send)
    elif scope["type"] == "websocket":
        await _echo(receive, send)
    else:
        await _lifespan(receive, send)


async def _constant(receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _JSON_HEADERS})
    await send({"type": "http.response.body", "body": CONSTANT})


async def _upload(receive: Receive, send: Send) -> None:
    received = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        received += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = str(received).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _events(scope: Message, send: Send) -> None:
    query = parse_qs(scope["query_string"].decode())
    count, interval = int(query["events"][0]), float(query["interval"][0])
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(count):
        event = event_bytes(time.monotonic_ns())
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(interval)
    await send({"type": "http.response.body", "body": b""})


async def _echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
