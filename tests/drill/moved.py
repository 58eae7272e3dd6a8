"""The phase in which a name moves: all its destinations die, and others stand in its records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import dns.message

from tests.drill.fleet import Gateways
from tests.drill.load import Load
from tests.drill.report import MOVED, Measured, Phase, measure
from tests.support.dns_servers import reply, scripted_dns
from tests.support.servers import free_port

__all__ = ["run_moved"]

EACH: Final = 3
"""Destinations before the move, and as many after it."""
_TTL_SECONDS: Final = 60


async def run_moved(
    gateways: Gateways,
    settings: Mapping[str, str],
    gets: float,
    posts: float,
    streams: int,
    seconds: float,
) -> Measured:
    """Run the phase, with a name server of its own.

    Args:
        gateways: Starts the gateways.
        settings: Of the upstream, by the end of the variable's name.
        gets: GETs a second.
        posts: POSTs a second.
        streams: Event streams at any time; as many WebSockets.
        seconds: How long the load goes on after the move.
    """
    ports = [free_port() for _ in range(2 * EACH)]
    named = ports[:EACH]

    def script(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        services = [
            f"_drill._tcp.internal. {_TTL_SECONDS} IN SRV 0 1 {port} here.internal."
            for port in named
        ]
        return [reply(query, *services, f"here.internal. {_TTL_SECONDS} IN A 127.0.0.1")]

    async with scripted_dns(script) as names:
        source = {
            "DESTINATIONS": "srv+http://_drill._tcp.internal.",
            "DISCOVERY__NAMESERVERS": names.nameserver,
            "DISCOVERY__FAMILY": "ipv4",
        }
        async with gateways(ports, {**settings, **source}) as running:
            load = Load([one.port for one in running.gateways], gets, posts, streams)
            async with load.running():
                await asyncio.sleep(1.5)  # a first look-up is followed by none for a second
                began = time.monotonic()
                named = ports[EACH:]
                await asyncio.gather(*(one.kill() for one in running.destinations[:EACH]))
                await asyncio.sleep(seconds)
            phase = Phase(MOVED, tuple(ports[:EACH]), began, time.monotonic(), time.monotonic())
    return measure(phase, load.records, running.events, EACH)
