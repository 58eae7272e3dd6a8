"""A long list of addresses does not hold up the event loop."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import dns.exception
import dns.message
import pytest

from fastapi_proxy_di.discovery.name_server import NameServer
from fastapi_proxy_di.discovery.names import Names
from fastapi_proxy_di.discovery.pieces import Pieces
from fastapi_proxy_di.discovery.protocol import Search
from fastapi_proxy_di.discovery.records import dns_source
from fastapi_proxy_di.discovery.searcher import Searcher
from fastapi_proxy_di.settings import DiscoverySettings
from fastapi_proxy_di.supervision.events import Events
from tests.discovery.samples import at
from tests.support.dns_servers import dnsmasq
from tests.support.processes import running

RECORDS = "".join(f"10.0.{n // 250}.{n % 250} api.internal\n" for n in range(1000))
RECORDS += "10.1.0.1 one.internal\n"
LONGEST_SECONDS = 0.008
"""Pieces last 2 ms; what cannot be divided, such as sorting, comes on top."""


FLOOD = r"""
import itertools, socket, struct, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
print("port", server.getsockname()[1], flush=True)
query, client = server.recvfrom(512)
number, = struct.unpack_from("!H", query)
def response(number, questions=1):
    return struct.pack("!6H", number, 0x8180, questions, 0, 0, 0) + b"\1a\0\0\1\0\1" * questions
wrong = [response(number ^ 1), response(number), response(number, 8000), b"\xff" * 600, b""]
ends = time.monotonic() + 2
for packet in itertools.cycle(wrong):
    server.sendto(packet, client)
    if time.monotonic() > ends:
        break
"""
"""A name server that sends wrong packets as fast as it can."""


@pytest.fixture
def _no_garbage_collection() -> Iterator[None]:
    """Leave out pauses that the objects of other tests cause."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def longest_turn(until: asyncio.Event) -> float:
    """Give the CPU seconds of this thread that the longest turn of the loop took.

    Time in which the machine runs other processes does not count.
    """
    longest, before = 0.0, time.thread_time()
    while not until.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    return longest


@pytest.mark.e2e
@pytest.mark.usefixtures("_no_garbage_collection")
async def test_a_thousand_records_do_not_hold_up_the_loop(tmp_path: Path) -> None:
    """From the packet to the list for the pool, for new addresses and for known ones; by TCP."""
    over, lists = asyncio.Event(), 0

    def changed(searcher: Searcher) -> None:
        nonlocal lists
        lists += len(searcher.destinations) == 1000
        if lists == 3:
            over.set()

    async with dnsmasq(tmp_path, RECORDS) as server:
        settings = DiscoverySettings(nameservers=(server.nameserver,), refresh=0.001, family="ipv4")
        # dnspython imports the code of each kind of record when it reads the first one.
        _ = await Names((server.nameserver,), "ipv4").addresses("one.internal")
        # The weight is a field that each of the destinations gets.
        search = Search(at("dns+http://api.internal:8080", weight=2), settings, 30.0, Random(1))
        searcher = Searcher(
            "billing", search, dns_source, random=Random(1), events=Events(), changed=changed
        )
        running = asyncio.create_task(searcher.run())
        async with asyncio.timeout(20):
            longest = await longest_turn(over)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert longest < LONGEST_SECONDS


@pytest.mark.e2e
@pytest.mark.usefixtures("_no_garbage_collection")
async def test_a_flood_of_wrong_packets_does_not_hold_up_the_loop() -> None:
    """Nor the end of the look-up: other numbers, questions and lengths, and garbage."""
    over = asyncio.Event()
    async with running(sys.executable, "-c", FLOOD) as flood:
        port = int((await flood.line(r"port (\d+)"))[1])
        began = time.monotonic()
        look_up = asyncio.create_task(
            NameServer("127.0.0.1", port).async_query(
                dns.message.make_query("api.internal.", "A"), 0.3, None, 0, False, None
            )
        )
        look_up.add_done_callback(lambda _: over.set())
        longest = await longest_turn(over)
        seconds = time.monotonic() - began

    assert isinstance(look_up.exception(), dns.exception.Timeout)
    assert seconds < 1.5
    assert longest < LONGEST_SECONDS


async def test_short_work_does_not_pause() -> None:
    """A list of some addresses is one turn of the loop, as before."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await Pieces().pause()
    counting.cancel()

    assert turns == 0
