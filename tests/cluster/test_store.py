"""Scripts run in a real store, within their time, and not at all while the store is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.exceptions import RedisClusterException

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.store import Contact, Script, Store, StoreLost
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
TIMEOUT = 0.25


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def changes() -> list[str]:
    """What the contact reported."""
    return []


@pytest.fixture
async def store(server: RedisServer, changes: list[str]) -> AsyncIterator[Store]:
    """A client of the server."""
    client = connect(server.url, timeout=None, read_timeout=None)
    store = Store(client, Contact(changes.append), TIMEOUT)
    yield store
    await store.aclose()


async def test_script_runs_also_after_the_store_forgot_it(
    store: Store, server: RedisServer
) -> None:
    """The text is sent where the digest is not known."""
    assert await store.run(ADD, ["count"], 2) == 2
    server.client.script_flush()

    assert await store.run(ADD, ["count"], 3) == 5


async def test_commands_under_way_end_with_the_first_that_takes_too_long(
    store: Store, server: RedisServer, changes: list[str]
) -> None:
    """None of a thousand waits for a timeout of its own, and further ones are not sent."""
    await store.run(ADD, ["count"], 1)
    server.pause()
    started = time.monotonic()

    async def late() -> float:
        await asyncio.sleep(TIMEOUT / 2)
        with pytest.raises(StoreLost):
            await store.run(ADD, ["count"], 1)
        return time.monotonic() - started

    first = asyncio.create_task(store.run(ADD, ["count"], 1))
    ends = await asyncio.gather(*[late() for _ in range(1000)])
    with pytest.raises(StoreLost, match="no response within"):
        await first
    server.resume()

    # In turn through the connections they would take eight seconds.
    assert max(ends) < 1.5 * TIMEOUT + 2
    assert changes == ["no response within 0.25 s"]
    with pytest.raises(StoreLost, match="is lost"):
        await store.run(ADD, ["count"], 1)


async def test_store_is_back_when_a_command_that_looks_for_it_succeeds(
    store: Store, server: RedisServer, changes: list[str]
) -> None:
    """Also at another process of the server, with an empty database."""
    await store.run(ADD, ["count"], 1)
    server.kill()
    with pytest.raises(StoreLost):
        await store.run(ADD, ["count"], 1)
    with pytest.raises(StoreLost):
        await store.run(ADD, ["count"], 1, looking=True)
    server.start()

    assert await store.run(ADD, ["count"], 1, looking=True) == 1
    assert await store.run(ADD, ["count"], 1) == 2
    assert changes[1:] == [""]


async def test_reason_names_the_error_and_no_key(
    store: Store, server: RedisServer, changes: list[str]
) -> None:
    """What the store says may have a key in it, of which only the class of the error is told."""
    server.client.set("secret-key", "no number")

    with pytest.raises(StoreLost):
        await store.run(ADD, ["secret-key"], 1)

    assert changes == ["ResponseError"]


async def test_time_in_which_the_loop_is_busy_does_not_count(
    store: Store, changes: list[str]
) -> None:
    """The process looks again for what the store has sent, here the end of a dial."""
    command = asyncio.create_task(store.run(ADD, ["count"], 1))
    await asyncio.sleep(0)  # the command has begun

    time.sleep(2 * TIMEOUT)  # noqa: ASYNC251  # what a busy loop looks like to the command

    assert await command == 1
    assert changes == []


async def test_errors_of_other_kinds_lose_the_store_too(changes: list[str]) -> None:
    """redis-py has some for a Redis Cluster that are no `RedisError`."""

    class Failing:
        async def execute_command(self, *args: Any, **options: Any) -> Any:
            raise RedisClusterException("node 10.0.0.1 is gone")

        async def aclose(self) -> None:
            pass

    store = Store(Failing(), Contact(changes.append), TIMEOUT)

    with pytest.raises(StoreLost):
        await store.run(ADD, ["count"], 1)

    assert changes == ["RedisClusterException"]
