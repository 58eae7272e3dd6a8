"""The upstream of the end-to-end tests; run as ``uvicorn tests.e2e.upstream:app``.

It writes each request and handshake that reaches it into the file that ``RECORD`` names.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["app"]

_released = asyncio.Semaphore(0)


class Record:
    """Middleware that records each request before the app gets it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._path = Path(os.environ["RECORD"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            with self._path.open("a") as record:
                record.write(f"{scope['type']} {scope['path']}\n")
        await self._app(scope, receive, send)


app = FastAPI()
app.add_middleware(Record)


@app.get("/hello")
async def hello() -> dict[str, str]:
    """Respond with a constant."""
    return {"hello": "world"}


@app.post("/digest")
async def digest(request: Request) -> dict[str, str | int]:
    """Give the length and hash of the body."""
    count, sha256 = 0, hashlib.sha256()
    async for piece in request.stream():
        count += len(piece)
        sha256.update(piece)
    return {"bytes": count, "sha256": sha256.hexdigest()}


@app.get("/events")
async def events() -> StreamingResponse:
    """Send one event; the second only after ``POST /release``."""

    async def stream() -> AsyncIterator[str]:
        yield "data: first\n\n"
        await _released.acquire()
        yield "data: second\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.post("/release")
async def release() -> None:
    """Let one stream continue."""
    _released.release()


@app.websocket("/live")
async def live(websocket: WebSocket) -> None:
    """Send every text message back."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"heard {text}")
