"""The outage drill: destinations die, hang, lie, slow down and return under load.

This file has the phases. ``python -m tests.drill`` runs the long form and prints the report;
``tests/timing/test_drill.py`` runs the short form and asserts the goals.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.drill.fleet import Fleet, Gateways, Server, one_gateway
from tests.drill.load import Load, Record
from tests.drill.moved import run_moved
from tests.drill.report import MOVED, Phase, Report, measure
from tests.support.servers import free_port

DESTINATIONS: Final = 5
FIRST_BYTE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The durations and rates of a drill.

    Attributes:
        fault: Seconds that each fault lasts.
        rest: Seconds after it, for the return.
        interval: ``health.interval`` in seconds.
        gets: GETs a second.
        posts: POSTs a second.
        streams: Event streams at any time; as many WebSockets.
    """

    fault: float
    rest: float
    interval: float
    gets: float
    posts: float
    streams: int


SHORT: Final = Pace(fault=4.2, rest=2.5, interval=1.0, gets=80, posts=40, streams=3)
LONG: Final = Pace(fault=30, rest=30, interval=5.0, gets=150, posts=50, streams=10)

Act = Callable[[list[Server]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One phase: the fault, its victims, and how it is undone."""

    name: str
    victims: tuple[int, ...]
    hurt: Act
    heal: Act


async def _nothing(victims: list[Server]) -> None:
    """Do nothing, in the healthy phase that others are compared with."""


async def _kill(victims: list[Server]) -> None:
    await asyncio.gather(*(victim.kill() for victim in victims))


async def _start(victims: list[Server]) -> None:
    await asyncio.gather(*(victim.start() for victim in victims))


async def _stop(victims: list[Server]) -> None:
    victims[0].process.signal(signal.SIGSTOP)


async def _continue(victims: list[Server]) -> None:
    victims[0].process.signal(signal.SIGCONT)


def _mode(mode: str) -> Act:
    async def act(victims: list[Server]) -> None:
        await victims[0].set_mode(mode)

    return act


# Each has a victim of its own, so that none is still marked by the one before. Faults that
# end in a kill do not come last: only a process that ends by itself reports its coverage.
FAULTS: Final = (
    Fault("healthy", (), _nothing, _nothing),
    Fault("slow", (3,), _mode("slow"), _mode("well")),
    Fault("killed", (0,), _kill, _start),
    Fault("all killed", tuple(range(DESTINATIONS)), _kill, _start),
    Fault("stopped", (1,), _stop, _continue),
    Fault("closing", (4,), _mode("close"), _mode("well")),
    Fault("fast 500s", (2,), _mode("fail"), _mode("well")),
)


def settings_of(pace: Pace) -> dict[str, str]:
    """The upstream's settings, as variables without their prefix."""
    return {
        "POLICY": "peak_ewma",
        "HEALTH__PATH": "/health",
        "HEALTH__INTERVAL": str(pace.interval),
        "HEALTH__TIMEOUT": "0.5",
        "RETRIES__STATUSES": "500,502,503",
        "EJECTION__STATUSES": "500",
        "TIMEOUTS__CONNECT": "1",
        "TIMEOUTS__FIRST_BYTE": str(FIRST_BYTE_SECONDS),
        "TIMEOUTS__ACTIVITY": "2",
    }


async def run(
    pace: Pace,
    say: Callable[[str], None] = lambda line: None,
    faults: Sequence[Fault] = FAULTS,
    gateways: Gateways = one_gateway,
) -> Report:
    """Run the drill.

    Args:
        pace: How long and how hard.
        say: Called with a line at the beginning of each phase.
        faults: The phases; goals need all of them.
        gateways: Starts the gateways.

    Returns:
        What was seen.
    """
    ports = [free_port() for _ in range(DESTINATIONS)]
    phases: list[Phase] = []
    async with gateways(ports, settings_of(pace)) as running:
        load = Load([one.port for one in running.gateways], pace.gets, pace.posts, pace.streams)
        async with load.running():
            await asyncio.sleep(0.5)  # connections and estimates warm up
            for fault in faults:
                say(fault.name)
                phases.append(await _run_phase(fault, running, pace))
    report = _report(phases, load.records, running, pace)
    if faults is FAULTS:
        say(MOVED)
        report.phases.append(
            await run_moved(
                gateways, settings_of(pace), pace.gets, pace.posts, pace.streams, pace.fault
            )
        )
    return report


async def _run_phase(fault: Fault, running: Fleet, pace: Pace) -> Phase:
    victims = [running.destinations[index] for index in fault.victims]
    began = time.monotonic()
    await fault.hurt(victims)
    await asyncio.sleep(pace.fault)
    await fault.heal(victims)
    healed = time.monotonic()
    if victims:
        await asyncio.sleep(pace.rest)
    return Phase(
        fault.name, tuple(victim.port for victim in victims), began, healed, time.monotonic()
    )


def _report(phases: list[Phase], records: list[Record], running: Fleet, pace: Pace) -> Report:
    return Report(
        interval=pace.interval,
        first_byte=FIRST_BYTE_SECONDS,
        destinations=DESTINATIONS,
        phases=[measure(phase, records, running.events, DESTINATIONS) for phase in phases],
    )
