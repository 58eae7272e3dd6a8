"""An operating-system process of the simulation: runs several processes of an app in one loop.

Each has a `Cluster` with connections of its own, a pool, a supervisor, a prober and all tasks of a
shared upstream. Simulated are the destinations alone: probes are answered without sockets, and
requests are counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from fastapi_proxy_di.supervision.events import (
    DestinationDraining,
    DestinationEjected,
    Event,
    StoreLost,
)
from tests.cluster.fleet import Process

__all__ = ["Given", "work"]

_LOOK_SECONDS: Final = 0.05
_REQUESTS: Final = 20
"""Requests a second of each process."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a worker is given.

    Attributes:
        url: Address of the store.
        processes: Processes of the app to run.
        destinations: Destinations of each.
        interval: ``health.interval``.
        snapshot: ``cluster.snapshot_interval``.
    """

    url: str
    processes: int
    destinations: int
    interval: float
    snapshot: float


def work(connection: Connection, given: Given) -> None:
    """Run the processes, do what the connection asks for, until it asks to stop."""
    logging.getLogger("fastapi_proxy_di").setLevel(logging.ERROR)
    with contextlib.suppress(KeyboardInterrupt):  # the parent ends too
        asyncio.run(_Worker(connection, given).run())


class _Worker:
    def __init__(self, connection: Connection, given: Given) -> None:
        self._connection: Final = connection
        self._given: Final = given
        self._processes: list[Process] = []
        self._late = 0.0
        self._seen: dict[tuple[str, str | None], list[float]] = {}

    async def run(self) -> None:
        """Run until asked to stop."""
        given, loop = self._given, asyncio.get_running_loop()
        before = _resident()
        for _ in range(given.processes):
            one = Process(
                given.url,
                destinations=given.destinations,
                interval=given.interval,
                snapshot=given.snapshot,
            )
            one.events.subscribe(self._see)
            self._processes.append(one)
            await one.start()
        gc.collect()
        self._connection.send((_resident() - before) / given.processes)
        own = [loop.create_task(self._requests()), loop.create_task(self._watch())]
        asked: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        loop.add_reader(
            self._connection.fileno(), lambda: asked.put_nowait(self._connection.recv())
        )
        ask: dict[str, Callable[[Any], object]] = {
            "drain": self._drain,
            "fail": self._fail,
            "late": self._how_late,
            "losses": self._losses,
            "epochs": lambda _: {one.state.epoch for one in self._processes},
            "seen": lambda event: self._seen.get(event, ()),
        }
        while True:
            what, value = await asked.get()
            if what == "stop":
                break
            self._connection.send(ask[what](value))
        loop.remove_reader(self._connection.fileno())
        for task in own:
            task.cancel()
        for one in self._processes:
            await one.stop()
        self._connection.send(None)

    async def _requests(self) -> None:
        """Let requests succeed in each process, each to the next destination."""
        for number in count():
            for one in self._processes:
                for n in range(_REQUESTS):
                    destination = one[(number * _REQUESTS + n) % self._given.destinations]
                    destination.successes += 1
                    counts = one.metrics.of(destination)
                    counts.attempts += 1
                    counts.first_byte.observe(0.004)
                    counts.series("GET", 200, None).observe(0.005)
                one.probed.clear()
                await asyncio.sleep(1 / len(self._processes))

    async def _watch(self) -> None:
        """Find how late the loop is, because the machine has too little for so many processes."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            self._late = max(self._late, loop.time() - due)

    def _see(self, event: Event) -> None:
        if isinstance(event, DestinationDraining | DestinationEjected):
            key = (type(event).__name__, event.destination)
            self._seen.setdefault(key, []).append(time.monotonic())

    def _drain(self, index: int) -> float:
        """Drain a destination in the first process; give when."""
        one = self._processes[0]
        at = time.monotonic()
        one.supervisor.drain(one[index])
        one.shared.drain(one[index].url, on=True)
        return at

    def _fail(self, index: int) -> None:
        """Let a destination fail in all processes, for requests and for probes."""
        for one in self._processes:
            one.down = {one[index].url}
            one.fail(index)

    def _how_late(self, _: object) -> float:
        """Give how late the loop was at most, since this was asked before."""
        late, self._late = self._late, 0.0
        return late

    def _losses(self, _: object) -> int:
        """Give how many times processes have lost the store."""
        return sum(one.kinds().count(StoreLost) for one in self._processes)


def _resident() -> int:
    """Give the resident memory of this operating-system process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
