"""Ejections of all processes: what enough of them vote for, and what a destination asks for.

A process votes to eject a destination that fails its own requests, also where ``max_share`` lets
it not eject the destination by itself. It votes anew every second, so that a vote is in an emptied
store again, and decides when another process has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from fastapi_proxy_di.cluster.probing_records import Records
from fastapi_proxy_di.cluster.scripts import ALIVE_MS, FORGET
from fastapi_proxy_di.cluster.store import Store, StoreLost
from fastapi_proxy_di.cluster.votes_script import (
    Ballot,
    VoteKeys,
    cast,
    checked_vote,
    mark_traffic,
)
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.supervision.events import EgressSuspected, Events
from fastapi_proxy_di.supervision.supervisor import Supervisor

__all__ = ["Votes"]

_AGAIN_SECONDS: Final = 1.0
_TRIES: Final = 5
_MOST: Final = 1000
"""Votes of a process that fit into one signed text."""

_AT_ONCE: Final = 20
"""Ballots of one round of votes that stand; the others have their turn in the next ones."""


class Votes:
    """Shares the ejections of one upstream.

    Args:
        supervisor: The supervisor of the upstream, which follows.
        store: The store.
        state: The records that processes share.
        events: Emits the events.
    """

    def __init__(
        self, supervisor: Supervisor, store: Store, state: Records, events: Events
    ) -> None:
        self._supervisor: Final = supervisor
        self._store: Final = store
        self._state: Final = state
        self._events: Final = events
        self._upstream: Final = supervisor.pool.name
        self._keys: Final = VoteKeys(state.cluster, self._upstream)
        self._digests: Final[dict[str, str]] = {}
        self._mine: Final[dict[Destination, str]] = {}
        self._new: Final[list[Destination]] = []
        self._to_write: Final[dict[str, dict[str, Any]]] = {}
        self._ends: Final[dict[str, int]] = {}
        self._sent: Final[dict[Destination, int]] = {}
        self._marked: Final[dict[Destination, float]] = {}
        self._changed: Final = asyncio.Event()
        self._destinations: tuple[Destination, ...] = supervisor.pool.destinations
        self._epoch = state.epoch
        self._put: set[Destination] = set()
        self._suspect = False

    @property
    def _on(self) -> bool:
        return self._supervisor.ejection.shared == "votes"

    def failing(self, destination: Destination, reason: str) -> None:
        """Vote to eject a destination."""
        if self._on and destination not in self._mine and not destination.removed:
            self._mine[destination] = reason
            self._new.append(destination)
            self._changed.set()

    def cooling(self, destination: Destination, seconds: float) -> None:
        """Tell that a destination wants no requests for ``seconds``, which all follow at once."""
        if self._on:
            seconds = min(seconds, self._supervisor.ejection.max_time)
            ends = self._state.now() + round(seconds * 1000)
            if ends - self._ends.get(destination.url, 0) < seconds * 100:
                return  # a tenth more is not worth telling for each of many responses
            self._tell(destination, {"until": ends, "by": "retry_after", "reason": ""})

    def readmitted(self, destination: Destination, reason: str) -> None:
        """Tell that an ejection has ended, unless it was this process's alone."""
        self._changed.set()  # the vote is withdrawn
        if self._on and (reason == "asked for" or self._runs(destination)):
            # An emptied store gets the record again for as long as it may get the ejection, too.
            until = self._state.now() + round(self._supervisor.ejection.max_time * 1000)
            self._tell(destination, {"until": until, "by": "readmission", "reason": reason})

    def ejected_alone(self, destination: Destination) -> bool:
        """Whether this process ejected a destination by itself, so that others do not probe it."""
        return destination.ejected and not destination.cooling and not self._runs(destination)

    def follow(self, url: str, body: Mapping[str, Any] | None) -> None:
        """Follow a record of an ejection, or of its end."""
        destination = self._supervisor.pool.find(url)
        if not self._on or body is None or destination is None:
            return
        self._ends[url] = self._end(body)
        seconds = (body["until"] - self._state.now()) / 1000
        match body["by"]:
            case "votes" if seconds > 0:
                self._supervisor.follow_ejection(destination, seconds, _reason(body))
                self._make_room()
            case "retry_after" if seconds > 0:
                self._supervisor.follow_cool_down(destination, seconds)
            case "readmission":
                self._mine.pop(destination, None)
                reason = f"{body['reason']} in another process"
                self._supervisor.follow_readmission(destination, reason)

    def _make_room(self) -> None:
        """Keep to ``max_share`` here, by ending ejections that are this process's alone."""
        destinations = self._supervisor.pool.destinations
        limit = max(1, int(self._supervisor.ejection.max_share * len(destinations)))
        excess = sum([one.ejected and not one.cooling for one in destinations]) - limit
        alone = sorted(
            filter(self.ejected_alone, destinations), key=lambda one: one.ejected_until or 0.0
        )
        for one in alone[: max(0, excess)]:
            self._supervisor.follow_readmission(one, "others are ejected by votes")

    def _end(self, body: Mapping[str, Any]) -> int:
        """Give the end of the ejection, in milliseconds of the store; 0 if it has ended."""
        longest = self._state.now() + round(self._supervisor.ejection.max_time * 1000)
        return 0 if body["by"] == "readmission" else min(body["until"], longest)

    def found_again(self) -> None:
        """Vote at once, as the store is back and may be empty."""
        self._changed.set()

    async def run(self) -> None:
        """Vote, and publish what needs no votes, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._changed.wait()
            self._changed.clear()
            self._follow_added()
            with suppress(StoreLost):  # the next round does the same again
                await self._vote()
                await self._tell_all()
                await self._mark_traffic()

    def _follow_added(self) -> None:
        """Follow the ejections that run of destinations that have joined the pool."""
        before, self._destinations = self._destinations, self._supervisor.pool.destinations
        if self._destinations is not before:
            held, now = self._state.held(self._upstream, "ejection"), self._state.now()
            for url in [one.url for one in set(self._destinations).difference(before)]:
                if url in held and held[url]["until"] > now:
                    self.follow(url, held[url])

    def _pause(self) -> float:
        return min(_AGAIN_SECONDS, self._supervisor.ejection.window / 10)

    def _tell(self, destination: Destination, body: dict[str, Any]) -> None:
        self._ends[destination.url] = self._end(body)
        self._to_write[destination.url] = body
        self._changed.set()

    async def _tell_all(self) -> None:
        while self._to_write:
            url = next(iter(self._to_write))
            body = self._to_write.pop(url)
            await self._state.write(self._upstream, "ejection", url, body)

    def _runs(self, destination: Destination) -> bool:
        """Whether an ejection runs that is not this process's alone."""
        return self._ends.get(destination.url, 0) > self._state.now()

    def _digest(self, destination: Destination) -> str:
        digest = self._digests.get(destination.url)
        if digest is None:
            digest = self._digests[destination.url] = self._state.hide(destination.url)
        return digest

    async def _mark_traffic(self) -> None:
        """Note where this process sends requests, at most twice in a window."""
        loop, window = asyncio.get_running_loop(), self._supervisor.ejection.window
        destinations, now = self._supervisor.pool.destinations, loop.time()
        self._forget(destinations)
        if self._epoch != self._state.epoch:  # another store, or an empty one
            self._epoch = self._state.epoch
            self._marked.clear()
        if not self._on:
            return
        due = []
        for one in destinations:
            count = one.successes + one.failures
            if count != self._sent.get(one, 0) and (
                now - self._marked.get(one, -window) >= window / 2
            ):
                due.append(one)
                self._sent[one] = count
        if due:
            digests = [self._digest(one) for one in due]
            await mark_traffic(self._store, self._keys, self._state.process, digests, window)
            self._marked.update(dict.fromkeys(due, now))

    def _forget(self, destinations: tuple[Destination, ...]) -> None:
        """Drop what is known of destinations that have left."""
        if len(self._sent) <= len(destinations) and len(self._ends) <= len(destinations):
            return
        staying, urls = set(destinations), {one.url for one in destinations}
        for one in self._sent.keys() - staying:
            del self._sent[one]
            self._marked.pop(one, None)
        for url in self._ends.keys() - urls:
            del self._ends[url]
        for url in self._digests.keys() - urls:
            del self._digests[url]

    async def _vote(self) -> None:
        """Bring the votes up to date, and have the new ones and some of the others counted."""
        held = self._held()
        new = [one for one in self._new if one in held]
        self._new.clear()
        self._tell_suspicion(len(held))
        others = [one for one in held if one not in new]
        for one in others[:_AT_ONCE]:  # to the end of the order
            self._mine[one] = self._mine.pop(one)
        ballots = [one for one in (*new, *others[:_AT_ONCE]) if not self._runs(one)]
        votes = self._signed(held)
        if ballots and not self._suspect:
            for one in ballots:
                await self._count(one, held[one], votes)
        elif ballots or held.keys() != self._put:
            await cast(self._store, self._keys, self._state.process, votes)
        self._put = set(held)

    def _held(self) -> dict[Destination, float]:
        """Give the votes that hold, with the seconds that they still do; drop the others."""
        if not self._on:
            self._mine.clear()
        now, settings = asyncio.get_running_loop().time(), self._supervisor.ejection
        held = {}
        for one in tuple(self._mine):
            if one.removed or one.cooling:
                left = 0.0
            elif one.ejected_until is not None:
                left = one.ejected_until - now
            elif self._supervisor.failing(one):
                left = settings.base_time
            else:
                left = 0.0
            if left > 0:
                held[one] = left
            else:
                del self._mine[one]
        return held

    def _tell_suspicion(self, votes: int) -> None:
        """Emit an event when this process begins to fail at more than half of the pool."""
        number = len(self._supervisor.pool.destinations)
        suspect = 2 * votes > number and self._state.alive > 1
        if suspect and not self._suspect and number > 1:
            self._events.emit(EgressSuspected(self._upstream, None, self._state.process))
        self._suspect = suspect

    def _signed(self, held: Mapping[Destination, float]) -> bytes:
        """Give the votes of this process, each with its end."""
        if not held:
            return b""
        now = self._state.now()
        ends = {self._digest(one): now + max(1, round(left * 1000)) for one, left in held.items()}
        some = dict(islice(ends.items(), _MOST))
        return self._state.seal(self._subject(self._state.process), {"at": now, "of": some})

    def _subject(self, process: str) -> tuple[str, str, str]:
        return "votes", self._upstream, process

    async def _checked(self, unchecked: Mapping[bytes, bytes], digest: str) -> set[str]:
        """Give those of the votes on a destination that hold; remove what is not signed."""
        now, good = self._state.now(), set()
        forged: list[bytes] = []
        for process, vote in unchecked.items():
            body = self._state.open(self._subject(process.decode(errors="replace")), vote)
            if body is None:
                forged += process, vote
            elif abs(now - body["at"]) < ALIVE_MS and body["of"].get(digest, 0) > now:
                good.add(checked_vote(process, vote))
        if forged:
            await self._store.run(FORGET, (self._keys.votes,), *forged)
        return good

    async def _count(self, destination: Destination, left: float, votes: bytes) -> None:
        """Have the votes on one destination counted; follow if that decides."""
        checked: set[str] = set()
        body = {
            "until": self._state.now() + round(left * 1000),
            "by": "votes",
            "votes": 2,
            "reason": self._mine.get(destination, ""),
        }
        field = f"ejection:{destination.url}"
        for _ in range(_TRIES):
            version, record = self._state.sign(self._upstream, field, body)
            count = await cast(
                self._store,
                self._keys,
                self._state.process,
                votes,
                self._ballot(destination, body, checked, field, version, record),
            )
            if count.outcome == "check":
                good = await self._checked(count.unchecked, self._digest(destination))
                body["votes"] = max(2, count.voters + len(good))
                checked |= good
            elif count.outcome == "older":
                self._state.learn(self._upstream, field, count.voters, None)
            else:
                break
        if count.outcome == "ejected":
            self._state.learn(self._upstream, field, version, body)
            self.follow(destination.url, body)

    def _ballot(
        self,
        destination: Destination,
        body: Mapping[str, Any],
        checked: Collection[str],
        field: str,
        version: int,
        record: bytes,
    ) -> Ballot:
        settings = self._supervisor.ejection
        return Ballot(
            self._digest(destination),
            len(self._supervisor.pool.destinations),
            settings.max_share,
            settings.window,
            body["votes"],
            checked,
            self._upstream,
            field,
            version,
            record,
        )


def _reason(body: Mapping[str, Any]) -> str:
    reason = f": {body['reason']}" if body["reason"] else ""
    return f"by votes of {body['votes']} processes{reason}"
