"""Held streams of every transport, those of calls of the app, and events that come too late."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, cast

import httpx
import pytest
from h2.events import WindowUpdated
from openai import AsyncOpenAI
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.errors import Failure, UpstreamTimeout
from fastapi_proxy_di.forwarding.event_rules import event_rule
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.first_event import FirstEvent
from tests.support.engines import engine
from tests.support.gateways import gateway
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.transport.http2.peer import Peer, scripted

pytestmark = pytest.mark.e2e

EVENT: Final = b"data: hello\n\n"
SOON: Final = {"first_event": 0.1}
LATER: Final = {"first_event": 30}


async def test_call_of_the_app_is_tried_elsewhere_as_well() -> None:
    """The OpenAI SDK on the upstream's client streams from the second engine."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}}
    about = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    role = b"data: %b\n\n" % json.dumps({**about, "choices": [choice]}).encode()
    text = role.replace(b'""', b'"hello"')
    settings: dict[str, Any] = {
        "policy": "first",
        "streams": {**SOON, "retry": True, "first_event_when": "openai"},
    }
    async with (
        ScriptedOrigin(engine(role, then="stall")) as bad,
        ScriptedOrigin(engine(role, text, b"data: [DONE]\n\n")) as good,
        gateway(bad.url, good.url, **settings) as gate,
    ):
        client = AsyncOpenAI(
            api_key="x",
            base_url="http://billing/v1",
            max_retries=0,
            http_client=gate.balancer.httpx2_client,
        )
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "a" * 100_000}], stream=True
        )
        words = [chunk.choices[0].delta.content async for chunk in stream]

    assert words == ["", "hello"]
    assert [origin.request.complete for origin in (bad, good)] == [True, True]


async def test_call_of_the_app_gets_the_timeout_of_httpx() -> None:
    """A ``ReadTimeout``, as for other silence."""
    async with (
        ScriptedOrigin(engine(then="stall")) as bad,
        gateway(bad.url, streams=SOON) as gate,
    ):
        with pytest.raises(httpx.ReadTimeout, match="first_event"):
            await gate.balancer.client.post("/x", json={})


LONG = EVENT + b": " + bytes(200_000) + b"\n\n"


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    """Stream an event and more than may be buffered, in pieces."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for at in range(0, len(LONG), 1000):
        more = at + 1000 < len(LONG)
        body = LONG[at : at + 1000]
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def respond_in_frames(peer: Peer) -> None:
    """The same over HTTP/2, as far as the window allows."""
    stream, _ = await peer.request()
    peer.respond(stream, 200, (b"content-type", b"text/event-stream"))
    sent = 0
    while sent < len(LONG):
        room = min(peer.h2.local_flow_control_window(stream), 10_000, len(LONG) - sent)
        if not room:
            await peer.next(WindowUpdated)
            continue
        peer.send(stream, LONG[sent : sent + room], end=sent + room == len(LONG))
        sent += room
    await peer.left()


async def test_stream_of_an_app_is_held() -> None:
    """All that was held is passed on, and the app sends the rest as the client reads."""
    url = f"asgi://{__name__}:inner"
    async with gateway(url, streams=LATER) as gate:
        reply = await fetch(gate.address, "GET", "/billing/x")

    assert reply.whole
    assert reply.body == LONG


async def test_stream_of_http2_is_held() -> None:
    """All that was held is passed on, and the windows of the stream stay right."""
    async with (
        scripted(respond_in_frames) as (url, _),
        gateway(url, http_version="2", streams=LATER) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/billing/x")

    assert reply.whole
    assert reply.body == LONG


class LateResponse:
    """A stream whose event arrives in the same turn of the loop in which its time ends."""

    headers: Final = [(b"content-type", b"text/event-stream")]

    def __init__(self, *, complete: bool) -> None:
        self.complete = complete
        self.failed = asyncio.Event()
        self.unread_bytes = b""

    async def read(self) -> bytes:
        """Give the event, which was there before the exchange failed."""
        await self.failed.wait()
        return EVENT

    def fail(self, error: BaseException) -> None:
        """Note that the time has ended."""
        self.failed.set()

    def unread(self, data: bytes) -> None:
        """Keep what is given back."""
        self.unread_bytes = data


@pytest.mark.parametrize("complete", [False, True])
async def test_event_that_comes_as_its_time_ends(complete: bool) -> None:
    """The rest of the stream is gone, so only a whole one is passed on."""
    response = LateResponse(complete=complete)
    exchange = Exchange({"type": "http"}, None, None, b"/", b"")
    exchange.transport_exchange = cast("Any", response)
    held = FirstEvent("billing", 0.01, event_rule("any"), retry=False)

    if complete:
        assert not await held.failed(exchange)
        assert response.unread_bytes == EVENT
    else:
        with pytest.raises(UpstreamTimeout) as caught:
            await held.failed(exchange)
        assert caught.value.failure is Failure.FIRST_EVENT_TIMEOUT
