"""``usage_tap``: what responses of language models have used, in access records and spans."""

from __future__ import annotations

import gzip
import json
import logging
from typing import Any, Final

import pytest
from fastapi import FastAPI
from opentelemetry.trace import SpanKind

from fastapi_proxy_di import TapExchange, UpstreamSettings, Usage, usage_tap
from tests.forwarding.tapped import plain, tapped
from tests.observability.traced import Exported
from tests.support.engines import engine
from tests.support.gateways import gateway, until
from tests.support.http_client import connect, fetch, request
from tests.support.origins import ScriptedOrigin
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e

JSON: Final = (b"Content-Type", b"application/json")


class Archive(UpstreamSettings, name="archive"):
    """Settings of the second upstream."""


@pytest.fixture(autouse=True)
def access(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Record the access records."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.access")
    return caplog


def used(caplog: pytest.LogCaptureFixture) -> tuple[Any, ...]:
    """Give what the last access record says of the usage."""
    record = vars([one for one in caplog.records if one.name == "fastapi_proxy_di.access"][-1])
    return tuple(record.get(name) for name in ("input_tokens", "output_tokens", "usage"))


def stream(*objects: dict[str, Any]) -> list[bytes]:
    """Give events of these objects, and the end of OpenAI's streams."""
    return [b"data: %b\n\n" % json.dumps(one).encode() for one in objects] + [b"data: [DONE]\n\n"]


def chat(**delta: Any) -> dict[str, Any]:
    """Give a chunk of OpenAI's chat."""
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}


ROLE: Final = chat(role="assistant")
TEXT: Final = chat(content="12345678")
TOOL: Final = chat(tool_calls=[{"index": 0, "id": "x" * 99, "function": {"arguments": '{"a"'}}])
CHAT_USAGE: Final = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
START: Final = {
    "type": "message_start",
    "message": {
        "role": "assistant",
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 20, "output_tokens": 1},
    },
}
BLOCK: Final = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "12345678"}}
MESSAGE_END: Final = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}}
DELTA: Final = {"type": "response.output_text.delta", "delta": "12345678"}
COMPLETED: Final = {
    "type": "response.completed",
    "response": {"usage": {"input_tokens": 11, "output_tokens": 4}},
}

STREAMS: Final[dict[str, tuple[list[dict[str, Any]], tuple[Any, ...]]]] = {
    "chat": ([ROLE, TEXT, CHAT_USAGE], (7, 3, "exact")),
    "chat without usage": ([ROLE, TEXT, TOOL], (3, 3, "estimated")),
    "usage in each chunk": (
        [{**TEXT, "usage": {"prompt_tokens": 7, "completion_tokens": one}} for one in (1, 2)],
        (7, 2, "exact"),
    ),
    "usage is null": ([{**TEXT, "usage": None}], (3, 2, "estimated")),
    "completions": ([{"choices": [{"text": "1234"}]}], (3, 1, "estimated")),
    "messages": ([START, BLOCK, MESSAGE_END], (25, 9, "exact")),
    "messages without end": ([START, BLOCK], (25, 2, "estimated")),
    "responses": (
        [{"type": "response.created", "response": {}}, DELTA, COMPLETED],
        (11, 4, "exact"),
    ),
    "responses without end": ([DELTA, DELTA], (3, 4, "estimated")),
    "counts that are none": (
        [{**TEXT, "usage": {"prompt_tokens": True, "completion_tokens": -1}}],
        (3, 2, "estimated"),
    ),
    "other events": ([{"row": 1}], (None, None, None)),
    "other types": ([{"choices": 3, "type": ["a"], "usage": 3}], (None, None, None)),
}


@pytest.mark.parametrize("case", STREAMS)
async def test_usage_of_a_stream(case: str, access: pytest.LogCaptureFixture) -> None:
    """Exact where the stream tells it, else estimated: a token for four bytes."""
    objects, expected = STREAMS[case]
    async with tapped(engine(*stream(*objects)), usage_tap()) as gate:
        await fetch(gate.address, "POST", "/billing/v1/x", body=b"x" * 12)
        await until(lambda: gate.in_flight == 0)

    assert used(access) == expected


ANSWERS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "chat": ({"choices": [{"message": TEXT}], **CHAT_USAGE}, (7, 3, "exact")),
    "messages": (
        {"type": "message", "usage": {"input_tokens": 5, "output_tokens": 2}},
        (5, 2, "exact"),
    ),
    "embeddings": ({"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}, (8, 0, "exact")),
    "chat without usage": (
        {"choices": [{"message": {"role": "assistant", "content": "1234"}}]},
        (0, 1, "estimated"),
    ),
    "messages without usage": (
        {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "12345"}]},
        (0, 2, "estimated"),
    ),
    "other": ({"content": "text", "usage": "rare"}, (None, None, None)),
    "a list": ([1], (None, None, None)),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_usage_of_plain_json(case: str, access: pytest.LogCaptureFixture) -> None:
    """The same names as in streams."""
    body, expected = ANSWERS[case]
    async with tapped(plain(json.dumps(body).encode()), usage_tap()) as gate:
        await fetch(gate.address, "GET", "/billing/v1/x")
        await until(lambda: gate.in_flight == 0)

    assert used(access) == expected


@pytest.mark.parametrize("leaves", [True, False])
async def test_stream_that_breaks_off_is_accounted_with_what_was_seen(
    leaves: bool, access: pytest.LogCaptureFixture
) -> None:
    """Whether the client leaves or the destination breaks it off."""
    piece = b"".join(stream(ROLE, TEXT)[:2])
    script = engine(piece, then="stall" if leaves else "close")
    async with tapped(script, usage_tap()) as gate:
        async with connect(gate.address) as client:
            await client.send(request(target="/billing/x"))
            await client.read_head()
            assert await client.read_chunk() == piece
            if not leaves:
                await client.reader.read()
        await until(lambda: gate.in_flight == 0)

    assert used(access) == (0, 2, "estimated")


async def sent(
    body: bytes, target: str, *headers: tuple[bytes, bytes], ask: bool = True, **settings: Any
) -> tuple[bytes, dict[bytes, bytes]]:
    """Give the body and the headers that a destination gets through a mount that asks."""
    async with ScriptedOrigin(engine(*stream(TEXT))) as origin:
        router = {"tap": usage_tap(ask=ask)}
        async with gateway(origin.url, router=router, **settings) as gate:
            await fetch(gate.address, "POST", target, headers=[JSON, *headers], body=body)
            await until(lambda: gate.in_flight == 0)
        return origin.request.body, dict(origin.request.headers)


CHAT: Final = "/billing/v1/chat/completions?a=1"
STREAM: Final = b' {"stream": true, "n": 1.0, "text": "\xc3\xa9"}'


async def test_ask_adds_include_usage() -> None:
    """All other bytes stay, and the length is that of the new body."""
    body, headers = await sent(STREAM, CHAT)

    asked = (
        b' {"stream_options":{"include_usage":true},"stream": true, "n": 1.0, "text": "\xc3\xa9"}'
    )
    assert body == asked
    assert headers[b"content-length"] == b"%d" % len(asked)


@pytest.mark.parametrize("options", [None, {}, {"other": 1}])
async def test_ask_keeps_other_stream_options(options: Any) -> None:
    """They are sent beside it."""
    body, _ = await sent(json.dumps({"stream": True, "stream_options": options}).encode(), CHAT)

    expected = {**(options or {}), "include_usage": True}
    assert json.loads(body) == {"stream": True, "stream_options": expected}


KEPT: Final[dict[str, tuple[bytes, str, list[tuple[bytes, bytes]], dict[str, Any]]]] = {
    "no stream": (b'{"stream": false}', CHAT, [], {}),
    "the client chose": (
        b'{"stream": true, "stream_options": {"include_usage": false}}',
        CHAT,
        [],
        {},
    ),
    "wrong options": (b'{"stream": true, "stream_options": 3}', CHAT, [], {}),
    "another endpoint": (STREAM, "/billing/v1/messages", [], {}),
    "no JSON": (b'{"stream": true', CHAT, [], {}),
    "no object": (b"[]", CHAT, [], {}),
    "encoded": (gzip.compress(STREAM), CHAT, [(b"Content-Encoding", b"gzip")], {}),
    "digest": (STREAM, CHAT, [(b"Content-Digest", b"sha-256=:YQ==:")], {}),
    "too large": (STREAM, CHAT, [], {"streams": {"replay_bytes": 10}}),
    "not asked": (STREAM, CHAT, [], {"ask": False}),
}


@pytest.mark.parametrize("case", KEPT)
async def test_ask_leaves_other_requests_as_they_are(case: str) -> None:
    """Byte for byte."""
    body, target, headers, more = KEPT[case]

    assert (await sent(body, target, *headers, **more))[0] == body


async def test_asked_request_is_sent_again_with_the_question() -> None:
    """A retry has the changed body, too."""
    async with (
        ScriptedOrigin(engine(then="reset")) as bad,
        ScriptedOrigin(engine(*stream(TEXT))) as good,
    ):
        streams = {"first_event": 5, "retry": True}
        router = {"tap": usage_tap(ask=True)}
        urls = (bad.url, good.url)
        async with gateway(*urls, router=router, streams=streams, policy="first") as gate:
            await fetch(gate.address, "POST", CHAT, headers=[JSON], body=STREAM)
            await until(lambda: gate.in_flight == 0)
        assert bad.request.body == good.request.body
        assert b"include_usage" in good.request.body


async def test_fallback_is_asked_as_well() -> None:
    """And it is asked once there."""
    async with ScriptedOrigin(engine(*stream(TEXT))) as good:
        router = {"tap": usage_tap(ask=True), "fallback": Archive(destinations=[good.url])}
        async with gateway(f"http://127.0.0.1:{dead_port()}", router=router) as gate:
            await fetch(gate.address, "POST", CHAT, headers=[JSON], body=STREAM)
            await until(lambda: gate.in_flight == 0)

    assert good.request.body.count(b"include_usage") == 1
    assert good.request.body.endswith(STREAM[2:])


async def test_tap_of_your_own_tells_usage(access: pytest.LogCaptureFixture) -> None:
    """It sets ``usage`` of its exchange."""

    def tap(event: object, exchange: TapExchange) -> None:
        exchange.usage = Usage(exchange.request_bytes, 2, exact=True)

    async with tapped(engine(b"data: x\n\n"), tap) as gate:
        await fetch(gate.address, "POST", "/billing/x", body=b"abc")
        await until(lambda: gate.in_flight == 0)

    assert used(access) == (3, 2, "exact")


async def test_span_has_the_usage() -> None:
    """In the names of OpenTelemetry's conventions, though it ends before the last byte is sent."""
    exported = Exported()
    app = FastAPI(telemetry={"tracer_provider": exported.provider})
    async with (
        ScriptedOrigin(plain(json.dumps(CHAT_USAGE).encode())) as origin,
        gateway(origin.url, router={"tap": usage_tap()}, app=app) as gate,
    ):
        await fetch(gate.address, "GET", "/billing/x")
        await until(lambda: gate.in_flight == 0)

    (attempt,) = exported.spans(SpanKind.CLIENT)
    attributes = dict(attempt.attributes or {})
    names = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
    assert [attributes.get(name) for name in names] == [7, 3]
