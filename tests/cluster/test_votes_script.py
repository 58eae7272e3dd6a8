"""The script that counts votes, in a real store: what decides, and the limit for all together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import cast as cast_type

import pytest

from fastapi_proxy_di.cluster.connecting import connect
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.cluster.store import Contact, Store
from fastapi_proxy_di.cluster.votes_script import (
    Ballot,
    Count,
    VoteKeys,
    cast,
    checked_vote,
    mark_traffic,
)
from tests.support.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

KEYS = VoteKeys("shop", "billing")
SIGNER = Signer(b"k" * 32, "shop")
STATE = "{shop}:state:billing"
STREAM = "{shop}:stream"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer() as server:
        yield server


@pytest.fixture
async def votes(server: RedisServer) -> AsyncIterator[Votes]:
    """The votes of processes that beat, in an empty store."""
    server.client.flushall()
    store = Store(connect(server.url, timeout=1, read_timeout=None), Contact(bool), 1)
    yield Votes(server, store)
    await store.aclose()


class Votes:
    """Votes of several processes on destinations named by a digit."""

    def __init__(self, server: RedisServer, store: Store) -> None:
        self.server = server
        self.store = store

    def now(self) -> int:
        """Give the store's time."""
        seconds, micro = self.server.client.time()
        return int(seconds * 1000 + micro // 1000)

    async def beat(self, *processes: str, ago_ms: int = 0, senders_to: str = "1") -> None:
        """Let processes be alive, with requests to destinations."""
        for one in processes:
            self.server.client.zadd("{shop}:members", {one: self.now() - ago_ms})
            await mark_traffic(self.store, KEYS, one, list(senders_to), 60)

    async def vote(
        self,
        process: str,
        votes: str | Mapping[str, float],
        on: str = "",
        *,
        pool: int = 10,
        max_share: float = 0.5,
        claimed: int = 2,
        version: int = 1,
        seconds: float = 30,
    ) -> Count:
        """Vote with a process, to be decided on the last of its votes or on another one."""
        on = on or max(votes)
        field = f"ejection:http://10.0.0.{on}"
        body = {"until": self.now() + round(seconds * 1000), "by": "votes", "votes": claimed}
        record = SIGNER.sign(("billing", field, str(version)), body)
        held = dict.fromkeys(votes, 30.0) if isinstance(votes, str) else votes
        mine, checked = self.signed(process, held), set[str]()
        for _ in range(4):  # the votes that have to be checked are good
            further = (claimed, checked, "billing", field, version, record)
            ballot = Ballot(on, pool, max_share, 60, *further)
            count = await cast(self.store, KEYS, process, mine, ballot)
            if count.outcome != "check":
                break
            checked |= {checked_vote(*one) for one in count.unchecked.items()}
        return count

    def signed(self, process: str, votes: Mapping[str, float]) -> bytes:
        """Give votes as a process signs them."""
        now = self.now()
        ends = {one: now + round(left * 1000) for one, left in votes.items()}
        return SIGNER.sign(("votes", "billing", process), {"at": now, "of": ends})


async def test_votes_of_two_and_half_of_those_with_requests_decide(votes: Votes) -> None:
    """One alone decides nothing, nor two of five; processes without requests are not asked."""
    await votes.beat("a", "b", "c", "d", "e")
    await votes.beat("f", "g", senders_to="2")

    assert await votes.vote("a", "1") == Count("open", 1, 5)
    assert await votes.vote("b", "1") == Count("open", 2, 5)
    assert await votes.vote("b", "1") == Count("open", 2, 5)
    assert not votes.server.client.exists(STATE)
    assert (await votes.vote("c", "1", claimed=4)).outcome == "check"
    assert await votes.vote("c", "1", claimed=3) == Count("ejected", 3, 5)
    assert await votes.vote("d", "1") == Count("runs", 4, 5)

    [(_, entry)] = cast_type(
        "list[tuple[bytes, dict[bytes, bytes]]]", votes.server.client.xrange(STREAM)
    )
    field = entry[b"field"]
    assert field == b"ejection:http://10.0.0.1"
    kept = votes.server.client.hget(STATE, field.decode())
    assert kept == entry[b"version"] + b"|" + entry[b"record"]
    body = SIGNER.read(("billing", field.decode(), "1"), entry[b"record"])
    assert body is not None
    assert body["votes"] == 3


async def test_vote_of_one_process_alone_never_decides(votes: Votes) -> None:
    """Also if no other process sends requests."""
    await votes.beat("a")

    assert await votes.vote("a", "1") == Count("open", 1, 1)


async def test_vote_ends_with_its_time_its_withdrawal_and_its_process(votes: Votes) -> None:
    """None of them counts any more, and a dead process is not asked either."""
    await votes.beat("a", "b", "c", "d")
    await votes.vote("a", {"1": 0.001})
    await asyncio.sleep(0.01)  # by the store's clock the vote of a has ended
    await votes.vote("b", "1", "2")
    await cast(votes.store, KEYS, "b", b"")
    await votes.vote("c", "1", "2")
    await votes.beat("c", ago_ms=3100)

    assert await votes.vote("d", "1") == Count("open", 1, 3)


async def test_process_that_fails_everywhere_is_not_counted(votes: Votes) -> None:
    """Neither as a voter nor as one with requests: more than half of the pool is its network."""
    await votes.beat("a", "b", "c", "d", senders_to="123")

    assert await votes.vote("a", "123", "1", pool=4) == Count("suspect", 0, 0)
    assert await votes.vote("b", "1", pool=4) == Count("open", 1, 3)
    assert await votes.vote("c", "12", "1", pool=4) == Count("ejected", 2, 3)


async def test_max_share_holds_for_votes_at_the_same_time(votes: Votes) -> None:
    """Of six that fail in all processes at once exactly half of the pool of ten is ejected."""
    processes = [f"process{n}" for n in range(6)]
    await votes.beat(*processes, senders_to="123456")

    def ballots(process: str) -> list[str]:
        # Each has five votes of its own, so that it is not suspected.
        first = processes.index(process)
        return [str((first + n) % 6 + 1) for n in range(5)]

    async def decide(process: str) -> None:
        mine = ballots(process)
        for on in mine:
            for claimed in (2, 3, 4, 5):
                await votes.vote(process, "".join(mine), on, claimed=claimed, max_share=0.3)

    await asyncio.gather(*map(decide, processes))

    assert votes.server.client.hlen(STATE) == 3
    assert votes.server.client.xlen(STREAM) == 3


async def test_ejection_that_has_ended_leaves_room(votes: Votes) -> None:
    """Whatever its record still says; and one destination may always be ejected."""
    await votes.beat("a", "b", senders_to="12")
    await votes.vote("a", "12", "1", pool=4, max_share=0.1)
    assert (await votes.vote("b", "12", "1", pool=4, max_share=0.1, seconds=0.2)).outcome == (
        "ejected"
    )
    assert (await votes.vote("b", "12", "2", pool=4, max_share=0.1)).outcome == "full"
    deadline = asyncio.get_running_loop().time() + 5
    while (await votes.vote("b", "12", "2", pool=4, max_share=0.1)).outcome == "full":
        assert asyncio.get_running_loop().time() < deadline

    assert votes.server.client.hlen(STATE) == 2


async def test_decision_replaces_no_newer_record(votes: Votes) -> None:
    """The version in the store is told, so that the voter writes one above it."""
    await votes.beat("a", "b")
    votes.server.client.hset(STATE, "ejection:http://10.0.0.1", "7|" + "0" * 32 + '{"until":0}')
    await votes.vote("a", "1")

    assert await votes.vote("b", "1", version=7) == Count("older", 7, 2)
    assert (await votes.vote("b", "1", version=8)).outcome == "ejected"


async def test_records_that_are_none_stop_no_count(votes: Votes) -> None:
    """Whoever wrote them; they eject nothing."""
    await votes.beat("a", "b")
    for n, text in enumerate(("", "x", "5|", "5|" + "0" * 32 + "[", "5|" + "0" * 32 + "3")):
        votes.server.client.hset(STATE, f"ejection:http://10.0.1.{n}", text)
    await votes.vote("a", "1", max_share=0.1)

    assert (await votes.vote("b", "1", max_share=0.1)).outcome == "ejected"
