"""Starts the processes of one size, measures what they cost the store and how soon all follow."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from tests.pools.samples import settings_of
from tests.scale.worker import Given, work
from tests.support.redis_servers import RedisServer

__all__ = ["Plan", "Row", "Size", "measure"]

_SENT: Final = ("eval", "evalsha", "xread")
"""The commands that processes send; what scripts do is counted beside them."""

_WAIT_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.01
_STATE: Final = "{shop}:state:billing"


@dataclass(frozen=True, slots=True)
class Size:
    """How many there are.

    Attributes:
        processes: Processes of the app.
        destinations: Destinations of their upstream.
    """

    processes: int
    destinations: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is measured.

    Attributes:
        workers: Operating-system processes that run the processes of the app.
        interval: ``health.interval``.
        snapshot: ``cluster.snapshot_interval``; longer than the default, because all processes
            share the cores of one machine, and as many rows are sent in the end.
        settle: Seconds until requests and probes are spread out.
        quiet: Seconds for which the cost is measured.
        drains: Drains, one after the other.
    """

    workers: int = 4
    interval: float = 15.0
    snapshot: float = 30.0
    settle: float = 60.0
    quiet: float = 30.0
    drains: int = 40

    def drains_of(self, size: Size) -> int:
        """Give how many drains there are with this size."""
        return min(self.drains, size.destinations // 2)


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured with one size.

    Attributes:
        processes: Processes of the app.
        destinations: Destinations of their upstream.
        commands: Commands a second, of all processes.
        inner: Commands a second that scripts run in the store.
        received: Bytes a second that the store receives.
        sent: Bytes a second that the store sends.
        store_cpu: Share of a core that the store needs.
        store_bytes: Memory of what the store holds.
        process_bytes: Memory of a process, its destinations and their probes included.
        drain_p50: Seconds from a drain until half of the processes follow.
        drain_p99: Seconds until 99 of 100 follow.
        eject: Seconds from the last failure until a destination is out in all processes, when half
            of them see it fail.
        flush: Seconds from an emptied store until all drains are there again and all processes
            have read it.
        lost: How many times a process has lost the store.
        late: Seconds that an event loop of the simulation was late during the drains, at most; if
            that is much, the machine is too small or busy, and the seconds above are longer than
            they would be.
    """

    processes: int
    destinations: int
    commands: float
    inner: float
    received: float
    sent: float
    store_cpu: float
    store_bytes: int
    process_bytes: float
    drain_p50: float
    drain_p99: float
    eject: float
    flush: float
    lost: int
    late: float

    def asdict(self) -> dict[str, Any]:
        """Give the fields."""
        return asdict(self)


def measure(size: Size, plan: Plan) -> Row:
    """Start a store and the processes, and measure."""
    with RedisServer() as server, _workers(server.url, size, plan) as (ask, memory):
        time.sleep(plan.settle)
        used = server.client.info("memory")["used_memory"]
        before = _counts(server)
        time.sleep(plan.quiet)
        commands, inner, received, sent, cpu = (
            (after - earlier) / plan.quiet
            for after, earlier in zip(_counts(server), before, strict=True)
        )
        ask("late")
        drains = sorted(_drains(ask, size, plan))
        late = max(ask("late"))
        return Row(
            *(size.processes, size.destinations, commands, inner, received, sent, cpu, used),
            sum(memory) / len(memory),
            *(drains[len(drains) // 2], drains[len(drains) * 99 // 100]),
            _eject(ask, size),
            _flush(ask, server, plan.drains_of(size)),
            sum(ask("losses")),
            late,
        )


_Ask = Callable[..., list[Any]]


@contextlib.contextmanager
def _workers(url: str, size: Size, plan: Plan) -> Iterator[tuple[_Ask, list[float]]]:
    """Run the workers; give what asks some or all of them, and the memory of a process in each."""
    context = multiprocessing.get_context("spawn")
    connections: list[Connection] = []
    started = []
    for n in range(plan.workers):
        share = size.processes // plan.workers + (n < size.processes % plan.workers)
        ours, theirs = context.Pipe()
        given = Given(url, share, size.destinations, plan.interval, plan.snapshot)
        started.append(context.Process(target=work, args=(theirs, given), daemon=True))
        connections.append(ours)
        started[-1].start()

    def ask(what: str, value: object = None, among: Sequence[Connection] = connections) -> Any:
        for one in among:
            one.send((what, value))
        return [one.recv() for one in among]

    try:
        memory = [one.recv() for one in connections]
        yield (
            lambda what, value=None, first=plan.workers: ask(what, value, connections[:first]),
            (memory),
        )
        ask("stop")
    finally:
        for process in started:
            process.join(10)
            process.kill()


def _counts(server: RedisServer) -> tuple[float, ...]:
    info: Any = server.client.info("all")
    calls = {
        name.removeprefix("cmdstat_"): counts["calls"]
        for name, counts in info.items()
        if name.startswith("cmdstat_")
    }
    sent = sum(calls.get(name, 0) for name in _SENT)
    return (
        sent,
        sum(calls.values()) - sent,
        info["total_net_input_bytes"],
        info["total_net_output_bytes"],
        info["used_cpu_user"] + info["used_cpu_sys"],
    )


def _drains(ask: _Ask, size: Size, plan: Plan) -> Iterator[float]:
    """Drain destinations in one process; give the seconds until each process followed."""
    for index in range(plan.drains_of(size)):
        (began,) = ask("drain", index, 1)
        url = settings_of(index).url
        yield from (at - began for at in _seen(ask, "DestinationDraining", url, size.processes))


def _eject(ask: _Ask, size: Size) -> float:
    """Let half of the processes fail at a destination; give the seconds until it is out in all."""
    last = size.destinations - 1
    workers = len(ask("losses"))
    began = time.monotonic()
    ask("fail", last, (workers + 1) // 2)
    url = settings_of(last).url
    return max(_seen(ask, "DestinationEjected", url, size.processes)) - began


def _seen(ask: _Ask, kind: str, url: str, processes: int) -> list[float]:
    """Wait until all processes have seen an event; give when they did."""
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        times = [at for seen in ask("seen", (kind, url)) for at in seen]
        if len(times) == processes:
            return times
        assert time.monotonic() < end, (
            f"{len(times)} of {processes} processes saw {kind} of {url};"
            f" loops are late by {ask('late')} s"
        )
        time.sleep(_LOOK_SECONDS)


def _flush(ask: _Ask, server: RedisServer, drains: int) -> float:
    """Empty the store; give the seconds until it is as before, and all have read it."""
    server.client.flushall()
    began = time.monotonic()
    while True:
        fields: Any = server.client.hkeys(_STATE)
        if sum(field.startswith(b"drain:") for field in fields) == drains:
            epochs = set().union(*ask("epochs"))
            if epochs == {server.client.get("{shop}:epoch")}:
                return time.monotonic() - began
        assert time.monotonic() - began < _WAIT_SECONDS, "the store is not as before"
        time.sleep(_LOOK_SECONDS)
