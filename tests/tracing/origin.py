"""The origin of the chain; FastAPI's own telemetry makes its spans."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse

app = FastAPI()


@app.get("/echo")
async def echo(request: Request) -> dict[str, str]:
    """Give the headers that came."""
    return dict(request.headers)


@app.get("/status/{status}/{path:path}")
async def status(status: int) -> Response:
    """Give a status."""
    return Response(status_code=status)


async def _left(request: Request) -> None:
    while not await request.is_disconnected():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.01)


@app.get("/slow/{path:path}")
async def slow(request: Request) -> None:
    """Respond once the client has gone."""
    await _left(request)


@app.get("/events/cut")
async def cut() -> StreamingResponse:
    """Break off after one event."""

    async def events() -> AsyncIterator[str]:
        yield "data: 1\n\n"
        await asyncio.sleep(0.1)  # so that the event is on its way
        raise RuntimeError("cut")

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/events/endless")
async def endless(request: Request) -> StreamingResponse:
    """Send one event, and keep the response open until the client has gone."""

    async def events() -> AsyncIterator[str]:
        yield "data: 1\n\n"
        await _left(request)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/live")
async def live(websocket: WebSocket) -> None:
    """Send back each text."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)
