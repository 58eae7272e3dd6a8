"""``Expect: 100-continue``: the destination gets the head before the body is read."""

import asyncio
from typing import Any

import pytest
from fastapi import Depends

from tests.support.gateways import gateway, gateway_app
from tests.support.http_client import connect, request
from tests.support.origins import Connection, ScriptedOrigin, response_bytes
from tests.support.servers import run_hypercorn

pytestmark = pytest.mark.e2e


_HEAD = request("POST", "/billing/x", [(b"Expect", b"100-continue"), (b"Content-Length", b"5")])


@pytest.mark.parametrize("include", [{}, {"dependencies": [Depends(lambda: None)]}])
@pytest.mark.parametrize("middlewares", [0, 1, 2])
async def test_refusal_arrives_without_a_continue(
    middlewares: int, include: dict[str, Any]
) -> None:
    """A refusal reaches the client before it sends its body."""

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        assert received.one(b"expect") == b"100-continue"
        await connection.send(response_bytes(417, b"no"))
        await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(
            origin.url,
            middlewares=middlewares,
            include=include,
            limits={"expect_continue": 30},
        ) as gate,
        connect(gate.address) as client,
    ):
        await client.send(_HEAD)
        reply = await client.read_response()
        await origin.all_left()

    assert reply.status == 417
    assert reply.informational == []


async def test_continue_is_forwarded() -> None:
    """The client gets 100 Continue when the destination has sent it."""
    asked = asyncio.Event()

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        assert received.one(b"expect") == b"100-continue"
        asked.set()
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await connection.read_body(received)
        await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, limits={"expect_continue": 30}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(_HEAD)
        interim = await client.read_head()
        assert asked.is_set()
        await client.send(b"hello")
        reply = await client.read_response()

    assert interim.status == 100
    assert reply.status == 200
    assert origin.request.body == b"hello"


async def test_silent_destination_gets_the_body_after_a_while() -> None:
    """A destination without support for 100 Continue gets it after ``expect_continue`` seconds."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, limits={"expect_continue": 0.05}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(_HEAD)
        interim = await client.read_head()
        await client.send(b"hello")
        reply = await client.read_response()

    assert interim.status == 100
    assert reply.status == 200
    assert origin.request.body == b"hello"


async def test_body_sent_without_waiting_arrives() -> None:
    """A client may send its body at once."""

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await connection.read_body(received)
        await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        await client.send(_HEAD + b"hello")
        reply = await client.read_response()

    assert reply.status == 200
    assert origin.request.body == b"hello"


async def test_server_that_sends_100_by_itself_still_works() -> None:
    """Hypercorn sends 100 Continue before it calls the app; the body still arrives."""

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        assert received.one(b"expect")
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await connection.read_body(received)
        await connection.send(response_bytes(body=b"ok"))

    async with (
        ScriptedOrigin(script) as origin,
        run_hypercorn(gateway_app(origin.url)) as running,
        connect(running.address) as client,
    ):
        await client.send(_HEAD)
        interim = await client.read_head()
        await client.send(b"hello")
        reply = await client.read_response()

    assert interim.status == 100
    assert reply.status == 200
    assert origin.request.body == b"hello"
