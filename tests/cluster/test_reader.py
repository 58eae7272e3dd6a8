"""All processes agree again, whatever happened to the store or the connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any

import pytest

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.reader import Reader
from fastapi_proxy_di.cluster.scripts import ENDS
from fastapi_proxy_di.cluster.store import Script, Store
from tests.cluster.sharing import STATE, until
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def flush(server: RedisServer) -> None:
    """Empty the store; connections stay."""
    server.client.flushall()


def restart(server: RedisServer) -> None:
    """Kill the store; another, empty one is at the address."""
    server.kill()
    server.start()


async def stop_and_go(server: RedisServer) -> None:
    """Stop the store for a while, as it is."""
    server.pause()
    await asyncio.sleep(1.5)
    server.resume()


async def slow(server: RedisServer) -> None:
    """Let the store take longer than the timeout, again and again."""
    for _ in range(3):
        await asyncio.to_thread(server.client.execute_command, "DEBUG", "SLEEP", "0.6")


async def follow_another(server: RedisServer) -> None:
    """Make the store a replica, which refuses to be written."""
    server.client.replicaof("127.0.0.1", "1")
    await asyncio.sleep(1.5)
    server.client.replicaof("NO", "ONE")


async def fill(server: RedisServer) -> None:
    """Let the store have no memory left."""
    server.client.config_set("maxmemory", "1")
    await asyncio.sleep(1.5)
    server.client.config_set("maxmemory", "0")


async def cut(server: RedisServer) -> None:
    """End all connections, again and again."""
    for _ in range(20):
        for kind in ("normal", "replica", "pubsub"):
            server.client.client_kill_filter(_type=kind, skipme=True)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("failure", "lost"),
    [
        (flush, False),
        (restart, None),
        (stop_and_go, True),
        (slow, True),
        (follow_another, True),
        (fill, True),
        (cut, None),
    ],
)
async def test_all_agree_after_the_store_is_back(
    start: Any, server: RedisServer, failure: Any, lost: bool | None
) -> None:
    """What was known, and what was written meanwhile in any process, is known in all."""
    processes = [await start() for _ in range(3)]
    await processes[0].write("http://before:80", 1)
    await until(lambda: all("http://before:80" in one.seen for one in processes))

    async def write_meanwhile() -> None:
        for n in range(30):
            for number, one in enumerate(processes):
                began = time.monotonic()
                await one.write(f"http://by-{number}:80", n)
                assert time.monotonic() - began < 1.5
            await asyncio.sleep(0.02)

    writing = asyncio.create_task(write_meanwhile())
    done = failure(server)
    if done is not None:
        await done
    expected = {"http://before:80": 1, **{f"http://by-{n}:80": 29 for n in range(3)}}
    await writing

    await until(lambda: all(one.seen == expected for one in processes), 2.0)
    await until(lambda: len(server.client.hgetall(STATE)) == 4, 2.0)
    if lost is not None:
        assert all(("StoreLost" in one.events) is lost for one in processes)
    ends = {one.events[-1] for one in processes if one.events}
    assert ends <= {"StoreBack"}
    await processes[1].write("http://after:80", 1)
    await until(lambda: all(one.seen.get("http://after:80") == 1 for one in processes), 0.5)


async def test_whole_read_that_takes_longer_than_a_beat_comes_to_its_end(
    start: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each beat finds that the store was emptied, until the read has ended."""
    one = await start()
    run = Store.run

    async def slowly(self: Store, script: Script, *given: Any, **options: Any) -> Any:
        result = await run(self, script, *given, **options)
        if script is ENDS:
            await asyncio.sleep(1.3)
        return result

    monkeypatch.setattr(Store, "run", slowly)
    server.client.flushall()

    await until(lambda: one.cluster.state.epoch == server.client.get("{shop}:epoch"), 4.0)


async def test_store_that_takes_no_further_connection_has_few_reads(
    start: Any, server: RedisServer
) -> None:
    """What changes is read once a second meanwhile; each whole read costs the store something."""
    one = await start()
    two = await start()
    await two.cluster.aclose()
    await until(lambda: any(each["cmd"] == "xread" for each in server.client.client_list()))
    server.client.config_set("maxclients", "1")
    for each in server.client.client_list():
        if each["cmd"] == "xread":
            server.client.client_kill_filter(_id=each["id"])
    await asyncio.sleep(1)
    before = reads(server)
    await asyncio.sleep(2)

    assert reads(server) - before <= 6
    await one.write("http://a:80", 1)
    server.client.config_set("maxclients", "1000")
    two = await start()
    await two.write("http://b:80", 2)
    await until(lambda: one.seen == {"http://a:80": 1, "http://b:80": 2}, 2.0)


def reads(server: RedisServer) -> int:
    """Give how many times records were read as a whole."""
    return int(server.client.info("commandstats")["cmdstat_hscan"]["calls"])


async def test_connection_that_is_not_made_in_time_is_no_lack_of_rights(
    start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning would send whoever reads it to the wrong place."""
    one = await start()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(3):  # the queue of connections is full
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(address)
            reader = Reader(
                one.cluster.state,
                lambda: connect(f"redis://127.0.0.1:{address[1]}", timeout=0.1, read_timeout=None),
                lambda: None,
            )
            pause = await reader._follow()

    assert pause < 0.2
    assert "XREAD" not in caplog.text
