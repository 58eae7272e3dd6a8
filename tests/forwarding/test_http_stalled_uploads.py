"""Clients that stop within their upload: 408, and no failure of a destination."""

import pytest
from fastapi import FastAPI

from tests.support.gateways import gateway, until
from tests.support.http_client import Ending, connect, request
from tests.support.origins import Connection, ScriptedOrigin
from tests.support.stepped_loop import SteppedLoop
from tests.support.taken import record_taken

pytestmark = pytest.mark.e2e


async def test_client_that_sends_no_byte_of_its_upload_is_a_request_timeout() -> None:
    """A body with a length is sent on once its first byte has come: no destination is used."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, timeouts={"activity": 0.1}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", [(b"Content-Length", b"10")]))
        reply = await client.read_response()

    assert (reply.status, reply.ending) == (408, Ending.LENGTH)
    assert origin.connections == 0


@pytest.mark.parametrize(
    ("framing", "first"),
    [
        (b"Content-Length: 10", b"hello"),
        (b"Transfer-Encoding: chunked", b""),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
        (b"Transfer-Encoding: chunked", b"5\r\nhel"),
    ],
)
async def test_client_that_stalls_its_upload_is_a_request_timeout(
    framing: bytes, first: bytes, deadline_clock: SteppedLoop
) -> None:
    """The client is slow: 408, and no failure of the destination."""

    async def script(connection: Connection) -> None:
        await connection.read_request()

    name, _, value = framing.partition(b": ")
    app = FastAPI()
    taken = record_taken(app)
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, app=app, ejection={"consecutive": 1}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/x", [(name, value)]) + first)
        await until(lambda: origin.requests and taken.waits)
        deadline_clock.advance(3600)
        reply = await client.read_response()
        available = gate.balancer.available
        await origin.all_left()

    assert (reply.status, reply.ending) == (408, Ending.LENGTH)
    assert len(available) == 1
