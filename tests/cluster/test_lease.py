"""Leases in a real store: one holder at a time, and no record by any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from time import monotonic

import pytest

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.lease import Finding, Lease, Renewal
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.state import SharedState
from fastapi_proxy_di.cluster.store import Contact, Store
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

STATE = "{shop}:state:billing"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[Store]:
    """A client of the empty server."""
    server.client.flushall()
    store = Store(connect(server.url, timeout=1, read_timeout=None), Contact(bool), 1)
    yield store
    await store.aclose()


def lease(store: Store) -> Lease:
    """Give a lease of another process."""
    state = SharedState(store, Signer(b"k" * 32, "shop"), "shop", "a process")
    return Lease(store, state, "billing", 0)


def finding(version: int, *, streamed: bool = False) -> Finding:
    """Give a record of the upstream."""
    return Finding("billing", "health:0", version, b"signed", streamed)


async def test_lease_has_one_holder(store: Store) -> None:
    """Another one takes it when it has run out, and the first one knows by its own clock."""
    first, second = lease(store), lease(store)

    assert await first.take(0.1)
    assert first.holds(monotonic())
    assert not await second.take(60)
    assert not second.holds(monotonic())
    deadline = monotonic() + 5
    while not await second.take(60):
        assert monotonic() < deadline
        await asyncio.sleep(0.01)
    assert not first.holds(monotonic())
    assert not (await first.renew(60)).held
    assert (await second.renew(60)).held
    assert not first.holds(monotonic())


async def test_lease_that_no_process_has_signed_holds_nothing(
    store: Store, server: RedisServer
) -> None:
    """Nor does one from before; and a mark that is not signed is none."""
    first, second = lease(store), lease(store)
    await first.take(0.2)
    before = server.client.get("{shop}:lease:billing:0")
    assert isinstance(before, bytes)
    await asyncio.sleep(1.3)  # it has ended, and more than clocks differ
    for forged in (b"0" * 32, b"0" * 32 + before[32:], before, b"1"):
        server.client.set("{shop}:lease:billing:0", forged)
        server.client.set("{shop}:lease:billing:0:suspect", b"0" * 32)
        assert await second.take(60)
        assert not second.marked
        assert not await first.take(60)
        await second.give()


async def test_lease_is_held_for_no_longer_than_the_store_holds_it(store: Store) -> None:
    """The time of a holder begins before the command is sent."""
    before = monotonic()
    one = lease(store)
    await one.take(10)

    assert not one.holds(monotonic() + 10)
    assert one.holds(before + 9.9)


async def test_lease_writes_nothing_for_another(store: Store, server: RedisServer) -> None:
    """A process whose lease another one has cannot change what is published, nor after a flush."""
    first, second = lease(store), lease(store)
    await first.take(60)
    assert (await first.renew(60, finding(7, streamed=True))).held
    assert server.client.hget(STATE, "health:0") == b"7|signed"
    assert server.client.xlen("{shop}:stream") == 1

    server.client.flushall()
    assert not (await first.renew(60, finding(8, streamed=True))).held
    assert await second.take(60)
    assert not (await first.renew(60, finding(9, streamed=True))).held
    assert not await first.take(60)

    assert not server.client.exists(STATE, "{shop}:stream")


async def test_lease_tells_the_version_that_it_did_not_replace(
    store: Store, server: RedisServer
) -> None:
    """So that the holder writes a higher one, and only flips are in the stream."""
    one = lease(store)
    await one.take(60)
    await one.renew(60, finding(7))

    assert (await one.renew(60, finding(7))).newer == 7
    assert (await one.renew(60, finding(8))).newer == 0
    assert server.client.hget(STATE, "health:0") == b"8|signed"
    assert not server.client.exists("{shop}:stream")


async def test_lease_that_is_given_is_free_at_once(store: Store) -> None:
    """With its mark, which the one who gave it does not take as another's."""
    first, second = lease(store), lease(store)
    await first.take(60)
    await second.give()
    assert not await second.take(60)

    await first.give()
    assert not first.holds(monotonic())
    assert await second.take(60)
    assert not second.marked
    await second.give(60)
    assert await second.take(60)
    assert not second.marked
    await second.give(60)
    assert await first.take(60)
    assert first.marked


async def test_version_that_no_clock_gives_is_written_over(
    store: Store, server: RedisServer
) -> None:
    """Whoever can write to the store stops no publishing by it."""
    held = lease(store)
    assert await held.take(60)
    server.client.hset(STATE, "health:0", "99999999999999999999|junk")

    renewal = await held.renew(60, finding(7))

    assert renewal == Renewal(held=True, newer=0)
    assert server.client.hget(STATE, "health:0") == b"7|signed"
