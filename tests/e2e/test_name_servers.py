"""A silent name server holds neither another upstream nor the end of the process."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.e2e.servers import uvicorn
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e

_RESOLVE_SECONDS = 3
_HANGING = 50


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_silent_name_server_concerns_one_upstream(loop: str) -> None:
    """Fifty requests wait for the name of one upstream; the other one dials for each request."""
    async with ScriptedOrigin() as origin:
        environment = {
            "UPSTREAM_DEAD_DESTINATIONS": f"http://dead.test:{origin.port}",
            "UPSTREAM_DEAD_TIMEOUTS__CONNECT": "60",
            "UPSTREAM_DEAD_TIMEOUTS__RESOLVE": str(_RESOLVE_SECONDS),
            "UPSTREAM_ALIVE_DESTINATIONS": f"http://alive.test:{origin.port}",
            "UPSTREAM_ALIVE_LIMITS__IDLE_CONNECTIONS": "0",
        }
        async with uvicorn(
            "tests.e2e.name_server_app:app", "--loop", loop, environment=environment
        ) as gateway:
            dead = [
                asyncio.create_task(fetch(gateway.address, target="/dead/x"))
                for _ in range(_HANGING)
            ]
            alive = [await fetch(gateway.address, target="/alive/x") for _ in range(20)]

            assert [reply.status for reply in alive] == [200] * 20
            assert not any(task.done() for task in dead)
            assert origin.connections == 20
            assert {(await task).status for task in dead} == {504}

            gateway.signal(signal.SIGINT)  # not SIGTERM, which ends a process without its threads
            began = time.monotonic()
            await gateway.end()
            assert time.monotonic() - began < 30

        assert [line for line in gateway.lines if "never retrieved" in line] == []
