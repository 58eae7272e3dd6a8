"""One destination of the drill: a real process that misbehaves on request.

``python -m tests.drill.destination PORT``. ``PUT /mode/<mode>`` sets how it responds. ``/health``
responds with 200 in every mode, because real destinations may also look healthy while they fail.

```text
well    responds after 2 ms (GET) or 5 ms (POST)
fail    responds with 500 at once
slow    responds after 300 ms
close   closes the connection after each response, without announcing it
```
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

GET_SECONDS: Final = 0.002
POST_SECONDS: Final = 0.005
SLOW_SECONDS: Final = 0.3
EVENTS: Final = 10
EVENT_SECONDS: Final = 0.1


class Destination:
    """The ASGI app of one destination.

    Args:
        name: How its responses name it, in ``x-served-by``.
    """

    def __init__(self, name: bytes) -> None:
        self.mode = "well"
        self._headers = [(b"x-served-by", name), (b"content-type", b"text/plain")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._echo(receive, send)
            return
        path: str = scope["path"]
        if path.startswith("/mode/"):
            self.mode = path.removeprefix("/mode/")
            await self._response(send, 200, b"")
        elif path == "/health":
            await self._response(send, 200, b"well")
        elif path == "/events":
            await self._events(send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        if self.mode == "fail":
            await self._response(send, 500, b"failed")
            return
        usual = POST_SECONDS if scope["method"] == "POST" else GET_SECONDS
        await asyncio.sleep(SLOW_SECONDS if self.mode == "slow" else usual)
        await self._response(send, 200, b"%d bytes" % size)

    async def _response(self, send: Send, status: int, body: bytes) -> None:
        headers = [*self._headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _events(self, send: Send) -> None:
        headers = [self._headers[0], (b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(EVENTS):
            body = b"data: %d\n\n" % number
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(EVENT_SECONDS)
        await send({"type": "http.response.body", "body": b""})

    async def _echo(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": self._headers[:1]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


def protocol_of(destination: Destination) -> type[HttpToolsProtocol]:
    """Make uvicorn's protocol, which closes after each response in the mode ``close``."""

    class Protocol(HttpToolsProtocol):
        def on_response_complete(self) -> None:
            super().on_response_complete()
            if destination.mode == "close":
                self.transport.close()

    return Protocol


def main() -> None:
    """Serve until a signal ends it."""
    port = int(sys.argv[1])
    destination = Destination(b"%d" % port)
    uvicorn.run(
        destination,
        port=port,
        http=protocol_of(destination),
        ws="websockets-sansio",
        lifespan="off",
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
