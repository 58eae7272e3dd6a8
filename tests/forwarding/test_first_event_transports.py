"""Held streams of every transport, those of calls of the app, and events that come too late."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Final, cast

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response
from h2.events import WindowUpdated
from openai import AsyncOpenAI
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di import Balancer, Upstream
from fastapi_proxy_di.errors import Failure, UpstreamTimeout
from fastapi_proxy_di.forwarding.event_rules import event_rule
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.first_event import FirstEvent
from tests.support.engines import engine
from tests.support.gateways import gateway, until
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


class BlockedResponse:
    """A stream whose piece is seen only after its time has ended, as by a loop that was blocked."""

    headers: Final = [(b"content-type", b"text/event-stream")]
    complete: Final = False

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.blocked = True
        self.given_back = b""

    async def read(self) -> bytes:
        """Wait without end, then give the piece at once."""
        if self.blocked:
            self.blocked = False
            await asyncio.Event().wait()
        return self.piece

    def unread(self, data: bytes) -> None:
        """Keep what is given back."""
        self.given_back = data


@pytest.mark.parametrize("piece", [EVENT, b": ping\n\n"])
async def test_event_that_arrives_as_its_time_ends_counts(piece: bytes) -> None:
    """An event does, a comment does not."""
    response = BlockedResponse(piece)
    exchange = Exchange({"type": "http"}, None, None, b"/", b"")
    exchange.transport_exchange = cast("Any", response)
    held = FirstEvent("billing", 0.01, event_rule("any"), retry=False)

    if piece == EVENT:
        assert not await held.failed(exchange)
        assert response.given_back == EVENT
    else:
        with pytest.raises(UpstreamTimeout) as caught:
            await held.failed(exchange)
        assert caught.value.failure is Failure.FIRST_EVENT_TIMEOUT


async def test_hedged_request_takes_the_first_event() -> None:
    """The branch whose stream begins first wins; the other one is closed."""
    async with (
        ScriptedOrigin(engine(then="stall")) as slow,
        ScriptedOrigin(engine(EVENT)) as fast,
        gateway(
            slow.url, fast.url, policy="first", streams=LATER, retries={"hedge_after": 0.05}
        ) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/billing/x")
        await slow.all_left()
        await until(lambda: gate.in_flight == 0)

    assert reply.body == EVENT
    assert (len(slow.requests), len(fast.requests)) == (1, 1)


async def test_total_timeout_ends_a_held_stream() -> None:
    """With its own failure, and no other destination follows."""
    async with (
        ScriptedOrigin(engine(then="stall")) as one,
        ScriptedOrigin(engine(EVENT)) as two,
        gateway(one.url, two.url, policy="first", streams=LATER, timeouts={"total": 0.1}) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/billing/x")

    assert (reply.status, reply.json()["failure"]) == (504, "total_timeout")
    assert len(two.requests) == 0


async def test_activity_timeout_of_a_held_stream_leads_to_another_destination() -> None:
    """Silence is silence, whichever limit ends it."""
    async with (
        ScriptedOrigin(engine(then="stall")) as one,
        ScriptedOrigin(engine(EVENT)) as two,
        gateway(
            one.url, two.url, policy="first", streams=LATER, timeouts={"activity": 0.1}
        ) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/billing/x")

    assert reply.body == EVENT
    assert (len(one.requests), len(two.requests)) == (1, 1)


async def test_stream_of_a_dynamic_destination_is_held() -> None:
    """There is no other destination, so silence is 504."""
    app = FastAPI()

    @app.get("/at")
    async def at(
        balancer: Annotated[Balancer, Depends(Upstream("billing"))], request: Request
    ) -> Response:
        return await balancer.forward(request, "/x", destination=origin.url)

    allowed = {"origins": "http://127.0.0.1:*", "networks": "127.0.0.0/8"}
    async with (
        ScriptedOrigin(engine(then="stall")) as origin,
        gateway("http://127.0.0.1:1", app=app, streams=SOON, allowed_destinations=allowed) as gate,
    ):
        reply = await fetch(gate.address, "GET", "/at")

    assert (reply.status, reply.json()["failure"]) == (504, "first_event_timeout")
