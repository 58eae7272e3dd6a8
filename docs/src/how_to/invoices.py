from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, dict[int, int]]]:
    yield {"totals": {7: 70}}  # until the gateway shuts down


app = FastAPI(lifespan=lifespan)


@app.get("/{number}")
async def invoice(number: int, request: Request) -> int:
    total: int = request.state.totals[number]
    return total
