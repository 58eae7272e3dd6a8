"""Bodies of requests that are kept until the first event, to be sent again."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from fastapi_proxy_di.forwarding.holding import KEPT_BODIES
from tests.support.engines import engine, stream_head, through
from tests.support.gateways import gateway, until
from tests.support.http_client import connect, request
from tests.support.origins import Connection, Script, ScriptedOrigin, chunk

pytestmark = pytest.mark.e2e

EVENT: Final = b"data: hello\n\n"
SOON: Final = {"first_event": 0.1}
LATER: Final = {"first_event": 30}
GOOD: Final = engine(EVENT)
ERROR: Final = b'event: error\ndata: {"message": "no"}\n\n'


@pytest.mark.parametrize("script", [engine(then="stall"), engine(ERROR, then="stall")])
async def test_post_is_sent_again_with_its_body_if_the_settings_say_so(script: Script) -> None:
    """Also a body over ``retries.replay_bytes``."""
    body = bytes(300_000)
    reply, origins = await through(
        script, GOOD, method="POST", body=body, streams={**SOON, "retry": True}
    )

    assert (reply.status, reply.body) == (200, EVENT)
    assert [origin.request.body for origin in origins] == [body, body]
    assert KEPT_BODIES.size == 0


@pytest.mark.parametrize(
    "more",
    [
        {"streams": {**SOON, "retry": True, "replay_bytes": 299_999}},
        {"streams": {**SOON, "retry": True}, "limits": {"replay_total_bytes": 299_999}},
    ],
)
async def test_body_that_is_not_kept_is_not_sent_again(more: dict[str, Any]) -> None:
    """It is too large, or all kept bodies together are."""
    reply, origins = await through(
        engine(then="stall"), GOOD, method="POST", body=bytes(300_000), **more
    )

    assert reply.status == 504
    assert [len(origin.requests) for origin in origins] == [1, 0]
    assert KEPT_BODIES.size == 0


async def test_kept_body_is_counted_until_the_first_event() -> None:
    """While the stream is held, and no longer once it flows."""
    flow = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(stream_head())
        await flow.wait()
        await connection.send(chunk(EVENT))
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, streams={**LATER, "retry": True}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", body=bytes(100_000)))
        await until(lambda: KEPT_BODIES.size == 100_000)
        flow.set()
        assert (await client.read_head()).status == 200
        assert await client.read_chunk() == EVENT
        assert KEPT_BODIES.size == 0
