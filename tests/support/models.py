"""Upstreams that speak enough of each model API: whole responses, and streams of events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

__all__ = ["WORDS", "models"]

WORDS = ["pay", " ", "now"]
"""The pieces of each response."""


def models() -> FastAPI:
    """Give an app with the chat APIs of OpenAI, Anthropic and Gemini."""
    app = FastAPI()
    app.add_route("/v1/chat/completions", _openai, methods=["POST"])
    app.add_route("/v1/messages", _anthropic, methods=["POST"])
    app.add_route("/v1beta/models/small:generateContent", _gemini, methods=["POST"])
    app.add_route("/v1beta/models/small:streamGenerateContent", _gemini_stream, methods=["POST"])
    return app


def _events(events: list[tuple[str | None, Any]]) -> Response:
    """Give server-sent events, one piece of the body each."""

    async def body() -> AsyncIterator[str]:
        for name, data in events:
            text = data if isinstance(data, str) else json.dumps(data)
            yield (f"event: {name}\n" if name else "") + f"data: {text}\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


async def _openai(request: Request) -> Response:
    asked = await request.json()
    base = {"id": "1", "created": 1, "model": asked["model"]}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "".join(WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({**base, "object": "chat.completion", "choices": [choice]})
    chunks: list[tuple[str | None, Any]] = []
    for word in WORDS:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        chunks.append((None, {**base, "object": "chat.completion.chunk", "choices": [choice]}))
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks.append((None, {**base, "object": "chat.completion.chunk", "choices": [end]}))
    if (asked.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
        last = {**base, "object": "chat.completion.chunk", "choices": [], "usage": usage}
        chunks.append((None, last))
    return _events([*chunks, (None, "[DONE]")])


async def _anthropic(request: Request) -> Response:
    asked = await request.json()
    usage = {"input_tokens": 1, "output_tokens": 1}
    message: dict[str, Any] = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    if not asked.get("stream"):
        content = [{"type": "text", "text": "".join(WORDS)}]
        return JSONResponse({**message, "content": content, "stop_reason": "end_turn"})
    block = {"type": "text", "text": ""}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
    ]
    for word in WORDS:
        delta = {"type": "text_delta", "text": word}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return _events([(event["type"], event) for event in events])


def _candidate(text: str) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}]}


async def _gemini(request: Request) -> Response:
    return JSONResponse(_candidate("".join(WORDS)))


async def _gemini_stream(request: Request) -> Response:
    return _events([(None, _candidate(word)) for word in WORDS])
