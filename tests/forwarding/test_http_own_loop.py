"""A gateway in its own thread and loop, as test suites and notebooks run one."""

import http.client

import pytest
from fastapi import FastAPI

from tests.support.gateways import gateway
from tests.support.servers import StartupFailed, run_app_in_thread

pytestmark = pytest.mark.e2e


async def test_gateway_serves_while_this_loop_is_blocked() -> None:
    """The gateway is not bound to the loop in which it was declared."""
    origin = FastAPI()

    @origin.get("/x")
    async def x() -> str:
        return "ok"

    async with (
        run_app_in_thread(origin) as running,
        gateway(running.url, in_thread=True, health={"path": "/x"}) as gate,
    ):
        connection = http.client.HTTPConnection(*gate.address, timeout=10)
        connection.request("GET", "/billing/x")
        reply = connection.getresponse()
        body = reply.read()
        connection.close()

    assert (reply.status, body) == (200, b'"ok"')


async def test_fault_at_start_is_raised_from_the_thread() -> None:
    """The text of the fault reaches the code that started the gateway."""
    with pytest.raises(StartupFailed, match="billing"):
        await gateway("http://127.0.0.1:1", in_thread=True, policy="no.such:Policy").__aenter__()
