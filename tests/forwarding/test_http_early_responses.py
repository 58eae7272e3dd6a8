"""Early responses reach the client before the end of its upload."""

import asyncio

import pytest

from tests.support.gateways import gateway, until
from tests.support.http_client import Ending, connect, request
from tests.support.origins import Connection, ScriptedOrigin, response_bytes

pytestmark = pytest.mark.e2e


_SIZE = 50 << 20


@pytest.mark.parametrize("middlewares", [0, 1, 2])
@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("status", [413, 401])
async def test_response_arrives_during_upload(status: int, closes: bool, middlewares: int) -> None:
    """The client still has most of its body to send."""

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(response_bytes(status, b"enough"))
        if closes:
            connection.close()
        else:
            await connection.peer_left()

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, middlewares=middlewares) as gate,
        connect(gate.address) as client,
    ):
        await client.send(
            request("POST", "/billing/x", [(b"Content-Length", b"%d" % _SIZE)]) + bytes(65536)
        )
        reply = await client.read_response()
        await origin.all_left()
        await until(lambda: gate.in_flight == 0)

    assert (reply.status, reply.body, reply.ending) == (status, b"enough", Ending.LENGTH)
    assert origin.connections == 1


async def test_connection_of_an_early_response_is_not_reused() -> None:
    """The rest of the body would be taken for the next request."""

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        await connection.send(response_bytes(413, b"enough"))
        if received.method == b"GET":
            return
        await connection.peer_left()

    async with ScriptedOrigin(script) as origin, gateway(origin.url) as gate:
        async with connect(gate.address) as client:
            await client.send(
                request("POST", "/billing/x", [(b"Content-Length", b"%d" % _SIZE)]) + b"GET /evil"
            )
            await client.read_response()
        async with connect(gate.address) as client:
            await client.send(request("GET", "/billing/x"))
            await client.read_response()

    assert [seen.target for seen in origin.requests] == [b"/x", b"/x"]
    assert origin.connections == 2


async def test_upload_stops_after_an_early_response() -> None:
    """The rest of the client's body is dropped, and the destination sees the close."""
    responded = asyncio.Event()
    after = bytearray()

    async def script(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(response_bytes(413, b"enough"))
        responded.set()
        while data := await connection.reader.read(65536):
            after.extend(data)

    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url) as gate,
        connect(gate.address) as client,
    ):
        await client.send(
            request("POST", "/billing/x", [(b"Content-Length", b"%d" % _SIZE)]) + b"first"
        )
        await responded.wait()
        reply = await client.read_response()
        await client.send(b"second")
        await origin.all_left()

    assert reply.status == 413
    assert after == b"first"
