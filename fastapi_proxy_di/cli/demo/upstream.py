"""One upstream server of the demo: an ordinary FastAPI app under uvicorn.

Responses name the upstream and its process in the headers ``x-demo-upstream`` and
``x-demo-pid``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import uvicorn
from fastapi import FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from fastapi_proxy_di.cli.listening import listen, url

HEALTH_PATH: Final = "/health"
READY: Final = "listening on "  # `demo` waits for this line
_SHUTDOWN_SECONDS: Final = 5


class DemoUpstream:
    """The endpoints of one demo upstream.

    Args:
        name: Name of the upstream in responses.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping: asyncio.Event = asyncio.Event()
        self._headers = {"x-demo-upstream": name, "x-demo-pid": str(os.getpid())}
        app = FastAPI(title=f"Demo upstream {name}")
        self.app: FastAPI = app
        app.get("/", summary="Name and process of the upstream")(self.hello)
        app.get(HEALTH_PATH, summary="Health, for probes")(self.health)
        app.post("/orders", summary="Echo a JSON body")(self.order)
        app.get("/events", summary="Server-sent events")(self.events)
        app.post("/upload", summary="Size and digest of an upload")(self.upload)
        app.websocket("/echo")(self.echo)

    async def hello(
        self, response: Response, delay: Annotated[float, Query(ge=0, le=10)] = 0
    ) -> dict[str, Any]:
        """Give name and process of this upstream, after ``delay`` seconds."""
        response.headers.update(self._headers)
        await asyncio.sleep(delay)
        return {"upstream": self.name, "pid": os.getpid(), "time": time.time()}

    async def health(self) -> dict[str, str]:
        """Give 200 for as long as the process takes requests."""
        return {"status": "ok"}

    async def order(self, order: dict[str, Any], response: Response) -> dict[str, Any]:
        """Give the order back, with name and process of this upstream."""
        response.headers.update(self._headers)
        await asyncio.sleep(0.01)  # long enough to be under way when the process is killed
        return {"upstream": self.name, "pid": os.getpid(), "order": order}

    async def events(
        self,
        count: Annotated[int | None, Query(ge=1)] = None,
        interval: Annotated[float, Query(gt=0, le=60)] = 0.5,
    ) -> StreamingResponse:
        """Stream ``count`` events, one every ``interval`` seconds; without end by default."""
        return StreamingResponse(
            self._ticks(count, interval), media_type="text/event-stream", headers=self._headers
        )

    async def _ticks(self, count: int | None, interval: float) -> AsyncIterator[str]:
        number = 0
        while count is None or number < count:
            number += 1
            event = {"upstream": self.name, "pid": os.getpid(), "number": number}
            yield f"id: {number}\ndata: {json.dumps(event)}\n\n"
            try:
                async with asyncio.timeout(interval):
                    await self.stopping.wait()
            except TimeoutError:
                continue
            return

    async def upload(self, request: Request, response: Response) -> dict[str, Any]:
        """Read the body in pieces, and give its size and digest."""
        response.headers.update(self._headers)
        size, digest = 0, hashlib.sha256()
        async for chunk in request.stream():
            size += len(chunk)
            digest.update(chunk)
        return {
            "upstream": self.name,
            "pid": os.getpid(),
            "bytes": size,
            "sha256": digest.hexdigest(),
        }

    async def echo(self, websocket: WebSocket) -> None:
        """Send every text message back, with the name of this upstream in front."""
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        await websocket.accept(headers=headers)
        try:
            while True:
                await websocket.send_text(f"{self.name}: {await websocket.receive_text()}")
        except WebSocketDisconnect:
            return


class _Server(uvicorn.Server):
    """A server that prints its address, and ends event streams when it shuts down.

    uvicorn shuts the app down only after the last open response, so an endless event stream
    would delay it for the whole shutdown timeout.
    """

    def __init__(self, config: uvicorn.Config, upstream: DemoUpstream) -> None:
        super().__init__(config)
        self._upstream = upstream

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            print(f"{READY}{url(listening)}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._upstream.stopping.set()
        await super().shutdown(sockets)


def run(name: str, port: int, *, with_parent: bool = False) -> int:
    """Serve until a signal comes.

    Args:
        name: Name of the upstream in responses.
        port: Port on 127.0.0.1; 0 takes any free one, which is printed.
        with_parent: End when the parent process has ended.

    Returns:
        2 if the port is taken, else 0.

    Raises:
        KeyboardInterrupt: Ctrl-C; open requests have finished or timed out.
    """
    listening = listen("127.0.0.1", port)
    if listening is None:
        return 2
    parent = os.getppid()

    async def leave_with_parent() -> None:
        if os.getppid() != parent:
            server.should_exit = True

    upstream = DemoUpstream(name)
    server = _Server(
        uvicorn.Config(
            upstream.app,
            log_level="critical",
            access_log=False,
            ws="websockets-sansio",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            callback_notify=leave_with_parent if with_parent else None,
            timeout_notify=0,
        ),
        upstream,
    )
    with listening:
        server.run(sockets=[listening])
    return 0
