"""What one upstream shares with the other processes: drains, weights, health and requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from math import isfinite
from typing import Any, Final, NamedTuple, Protocol

from fastapi_proxy_di.cluster.keys import parsed_id
from fastapi_proxy_di.cluster.probing_upstream import SharedHealth
from fastapi_proxy_di.cluster.requests import SharedRequests
from fastapi_proxy_di.cluster.state import Body, SharedState
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.supervision.supervisor import Supervisor

__all__ = ["Drained", "SharedUpstream"]


class Drained(NamedTuple):
    """A drain that all processes follow.

    Attributes:
        by: Host and process id of the process where it was asked for.
        at: When, in milliseconds since 1970, by the store's clock.
    """

    by: str
    at: int


class _Own(Protocol):
    def __call__(
        self, coroutine: Coroutine[Any, Any, str | None], name: str
    ) -> asyncio.Task[str | None]: ...


class SharedUpstream:
    """Shares one upstream, from its making to ``close``.

    A record about an address that the pool does not have is kept, and applied when the address
    is there.

    Args:
        state: The records that processes share.
        supervisor: The supervisor of the upstream.
        weigh: Gives an address a weight, whatever the settings say.
        own: Runs what writes a record to its end.
        health: Shares the health.
        requests: Shares ``max_requests``.
        ended: Called at the end.

    Attributes:
        health: Shares the health.
        requests: Shares ``max_requests``.
    """

    def __init__(
        self,
        state: SharedState,
        supervisor: Supervisor,
        weigh: Callable[[str, float], object],
        own: _Own,
        health: SharedHealth,
        requests: SharedRequests,
        ended: Callable[[], object],
    ) -> None:
        self._ended: Final = ended
        self.health: Final = health
        self.requests: Final = requests
        self._state: Final = state
        self._supervisor: Final = supervisor
        self._weigh: Final = weigh
        self._own: Final = own
        self._name: Final = supervisor.pool.name
        self._writes: Final[set[asyncio.Task[str | None]]] = set()
        state.add(self._name, lambda url: supervisor.pool.find(url) is not None)
        self._subscriptions: Final = (
            state.subscribe(self._name, "drain", self._follow_drain),
            state.subscribe(self._name, "weight", self._follow_weight),
        )

    async def start(self) -> None:
        """Apply the drains, and take what is free of the probes, before the first of them."""
        self.restore(self._supervisor.pool.destinations)
        await self.health.start()

    def restore(self, destinations: Iterable[Destination]) -> None:
        """Drain those of the pool's new destinations that are drained in all processes."""
        drains = self._state.held(self._name, "drain")
        for destination in destinations:
            body = drains.get(destination.url)
            if body is not None:
                self._drain(destination, body)

    def drain(self, url: str, *, on: bool) -> None:
        """Drain or undrain a destination in all processes."""
        state = self._state
        self._write("drain", url, {"on": on, "by": state.process, "at": state.now()})

    def weigh(self, url: str, weight: float) -> None:
        """Give a destination a weight in all processes."""
        self._weigh(url, weight)
        self._write("weight", url, {"weight": weight})

    def drained(self, url: str) -> Drained | None:
        """Give who drained a destination in all processes, and when."""
        body = self._state.record(self._name, f"drain:{url}")
        if body is None or not body.get("on"):
            return None
        return Drained(str(body.get("by")).rpartition(":")[0], int(body.get("at", 0)))

    async def written(self) -> str | None:
        """Wait for the changes that are being written; give the id of the last entry.

        ``None`` if one could not be written, because the store is lost.
        """
        writes = tuple(self._writes)
        if not writes:
            return None
        # Not `gather`, which would end the writes with who waits for them.
        await asyncio.wait(writes)
        entries = [one.result() for one in writes]
        if None in entries:
            return None
        return max(filter(None, entries), key=parsed_id)

    def close(self) -> None:
        """Follow no more records, and report the last counts."""
        self._ended()
        self.health.close()
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._state.remove(self._name)

    def _write(self, kind: str, url: str, body: Body) -> None:
        writing = self._state.write(self._name, kind, url, body)
        task = self._own(writing, f"{kind} of {self._name}: {url}")
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    def _follow_drain(self, url: str, body: Body) -> None:
        destination = self._supervisor.pool.find(url)
        if destination is not None:
            self._drain(destination, body)

    def _drain(self, destination: Destination, body: Body) -> None:
        if body.get("on"):
            self._supervisor.drain(destination)
        else:
            self._supervisor.undrain(destination)

    def _follow_weight(self, url: str, body: Body) -> None:
        weight = body.get("weight")
        if isinstance(weight, int | float) and isfinite(weight) and weight > 0:
            self._weigh(url, weight)
