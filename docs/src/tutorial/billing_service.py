from collections.abc import AsyncIterator

from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse

app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/invoices/{number}")
async def invoice(number: int, request: Request) -> dict[str, int | None]:
    if number > 999:
        raise HTTPException(404, "no such invoice")
    return {"number": number, "total": 10 * number, "served_by": request.url.port}


@app.post("/v2/pay")
async def pay(request: Request) -> dict[str, str | int]:
    body = await request.body()
    return {"tenant": request.headers.get("x-tenant", "none"), "bytes": len(body)}


@app.get("/events")
async def events() -> StreamingResponse:
    async def stream() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.websocket("/live")
async def live(websocket: WebSocket) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol=offered[0] if offered else None)
    async for text in websocket.iter_text():
        await websocket.send_text(f"billing heard {text}")
