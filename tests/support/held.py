"""A gateway whose origin holds requests until it is told to respond."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.support.gateways import Gateway, billing, gateway, until
from tests.support.http_client import RawResponse, fetch
from tests.support.origins import Connection, ScriptedOrigin, response_bytes

__all__ = ["Held", "Holding", "get", "holding", "statuses"]


class Holding:
    """Keeps connections, responds with their number, and holds ``/held`` until ``go``."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            if received.target.startswith(b"/held"):
                await self.go.wait()
            await connection.send(response_bytes(body=b"%d" % connection.number))


async def get(gate: Gateway, path: str = "x") -> RawResponse:
    """Send a GET through the gateway."""
    return await fetch(gate.address, target=f"/billing/{path}")


async def statuses(gate: Gateway, number: int) -> list[int]:
    """Give the statuses of some GETs, one after the other."""
    return [(await get(gate)).status for _ in range(number)]


class Held:
    """A gateway whose origin can hold requests.

    Attributes:
        origin: The origin.
        gate: The gateway.
        tasks: The requests that have begun.

    Args:
        origin: The origin.
        script: Its script.
        gate: The gateway.
    """

    def __init__(self, origin: ScriptedOrigin, script: Holding, gate: Gateway) -> None:
        self.origin = origin
        self.gate = gate
        self.tasks: list[asyncio.Task[RawResponse]] = []
        self._script = script

    async def hold(self, number: int) -> None:
        """Begin requests that are held by the origin."""
        before = len(self.origin.requests)
        self.tasks += [asyncio.create_task(get(self.gate, "held")) for _ in range(number)]
        await until(lambda: len(self.origin.requests) == before + number)

    async def wait(self, number: int) -> None:
        """Begin requests that wait in the queue."""
        before = self.gate.balancer.status().queued
        self.tasks += [asyncio.create_task(get(self.gate)) for _ in range(number)]
        await until(lambda: self.gate.balancer.status().queued == before + number)

    def release(self) -> None:
        """Let the origin respond."""
        self._script.go.set()

    async def reload(self, **settings: Any) -> tuple[str, ...]:
        """Change the settings."""
        return await self.gate.balancer.reload(billing(self.origin.url, **settings))


@contextlib.asynccontextmanager
async def holding(**settings: Any) -> AsyncIterator[Held]:
    """Run a gateway whose origin can hold requests; they are released at the end.

    Args:
        **settings: Of the upstream.
    """
    script = Holding()
    async with ScriptedOrigin(script) as origin, gateway(origin.url, **settings) as gate:
        held = Held(origin, script, gate)
        try:
            yield held
        finally:
            held.release()
            await asyncio.gather(*held.tasks)
