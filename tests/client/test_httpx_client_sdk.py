"""An SDK that runs on the upstream's client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.client.upstreams import running
from tests.support.servers import run_app


async def completions(request: Request) -> Response:
    """A replacement of the chat API, streaming and not."""
    asked = await request.json()
    words = ["pay", " ", "now"]
    base = {"id": "1", "created": 1, "model": asked["model"]}

    async def events() -> AsyncIterator[str]:
        for word in words:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            event = {**base, "object": "chat.completion.chunk", "choices": [choice]}
            yield f"data: {json.dumps(event)}\n\n"
        yield "data: [DONE]\n\n"

    if asked.get("stream"):
        return StreamingResponse(events(), media_type="text/event-stream")
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse({**base, "object": "chat.completion", "choices": [choice]})


@pytest.mark.e2e
async def test_client_serves_the_openai_sdk() -> None:
    """The openai package runs on the upstream's client, streaming and not."""
    # Here, as its import takes every process that collects this file a second.
    from openai import AsyncOpenAI

    fake = FastAPI()
    fake.add_route("/chat/completions", completions, methods=["POST"])
    question: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    async with run_app(fake) as server, running(server.url) as balancer:
        client: Any = balancer.client  # openai 3 says httpx2 and takes httpx as well
        async with AsyncOpenAI(api_key="k", http_client=client, base_url=client.base_url) as sdk:
            whole = await sdk.chat.completions.create(**question)
            stream = await sdk.chat.completions.create(**question, stream=True)
            parts = [part.choices[0].delta.content async for part in stream]
        after = await client.get("/nothing")

    assert whole.choices[0].message.content == "pay now"
    assert parts == ["pay", " ", "now"]
    assert after.status_code == 404
