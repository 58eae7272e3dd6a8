"""The script that takes the votes of a process, counts those of all, and writes the decision.

It alone counts, so that ``ejection.max_share`` holds for all processes together, whatever is voted
at the same time. Its time is the store's. It cannot check signatures: before it decides, it has the
process that asks check the votes, and counts those alone. What else is not signed in the store (who
beats, who sent requests, which ejections run) can only keep it from a decision, or lower the number
of votes that are asked for, to no less than two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from hashlib import sha1
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from fastapi_proxy_di.cluster.keys import Keys
from fastapi_proxy_di.cluster.scripts import ALIVE_MS
from fastapi_proxy_di.cluster.store import Script, Store

__all__ = ["Ballot", "Count", "Outcome", "VoteKeys", "cast", "checked_vote", "mark_traffic"]

Outcome: TypeAlias = Literal[
    "taken", "suspect", "open", "full", "check", "older", "runs", "ejected"
]

# A member is alive for as long as its beat is kept. A process with votes on more than half of the
# pool counts neither as a voter nor as one with traffic.
_CAST: Final = Script(
    """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local process, digest, pool = ARGV[1], ARGV[3], tonumber(ARGV[4])

    if ARGV[2] == '' then
        redis.call('HDEL', KEYS[1], process)
    else
        redis.call('HSET', KEYS[1], process, ARGV[2])
        redis.call('PEXPIRE', KEYS[1], 3600000)
    end
    if digest == '' then return {'taken', 0, 0, {}} end

    local window = tonumber(ARGV[6])
    redis.call('ZADD', KEYS[5], now, process)
    redis.call('PEXPIRE', KEYS[5], window)
    local alive = {}
    for _, one in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], now - ARGV[7], '+inf')) do
        alive[one] = true
    end
    local suspects, senders, voters, checked, unchecked = {}, 0, 0, 0, {}
    local votes = redis.call('HGETALL', KEYS[1])
    for i = 1, #votes, 2 do
        if not alive[votes[i]] then
            redis.call('HDEL', KEYS[1], votes[i])
        else
            local count, this = 0, false
            for one, ends in string.gmatch(votes[i + 1], '"(%x+)":(%d+)') do
                if tonumber(ends) > now then
                    count = count + 1
                    this = this or one == digest
                end
            end
            if count * 2 > pool then
                suspects[votes[i]] = true
            elseif this then
                voters = voters + 1
                local vote = redis.sha1hex(votes[i]) .. redis.sha1hex(votes[i + 1])
                if string.find(ARGV[13], vote, 1, true) then
                    checked = checked + 1
                else
                    unchecked[#unchecked + 1] = votes[i]
                    unchecked[#unchecked + 1] = votes[i + 1]
                end
            end
        end
    end
    if suspects[process] then return {'suspect', 0, 0, {}} end
    redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - window)
    for _, one in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
        if alive[one] and not suspects[one] then senders = senders + 1 end
    end
    if voters < 2 or voters * 2 < senders then return {'open', voters, senders, {}} end

    local running, known = 0, nil
    local record = '^(%d+)|' .. string.rep('%x', 32) .. '(.*)$'
    local state = redis.call('HGETALL', KEYS[3])
    for i = 1, #state, 2 do
        if string.sub(state[i], 1, 9) == 'ejection:' then
            local version, json = string.match(state[i + 1], record)
            local read, body = pcall(cjson.decode, json)
            local runs = read and type(body) == 'table' and body['by'] == 'votes'
                and tonumber(body['until']) and tonumber(body['until']) > now
            if state[i] == ARGV[9] then
                known = tonumber(version)
                if runs then return {'runs', voters, senders, {}} end
            elseif runs then
                running = running + 1
            end
        end
    end
    if running >= math.max(1, math.floor(tonumber(ARGV[5]) * pool)) then
        return {'full', voters, senders, {}}
    end
    if checked < 2 or checked * 2 < senders or checked < tonumber(ARGV[8]) then
        return {'check', checked, senders, unchecked}
    end
    if known and known < 9e15 and known >= tonumber(ARGV[10]) then
        return {'older', known, senders, {}}
    end
    redis.call('HSET', KEYS[3], ARGV[9], ARGV[10] .. '|' .. ARGV[11])
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', 10000, '*', 'upstream', ARGV[12],
        'field', ARGV[9], 'version', ARGV[10], 'record', ARGV[11])
    return {'ejected', checked, senders, {}}
    """
)

_MARK: Final = Script(
    """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    for _, key in ipairs(KEYS) do
        redis.call('ZADD', key, now, ARGV[1])
        redis.call('PEXPIRE', key, ARGV[2])
    end
    return 0
    """
)

_MARKS_AT_ONCE: Final = 100


class VoteKeys:
    """The keys of the votes of one upstream.

    Args:
        cluster: Name of the app.
        upstream: Name of the upstream.
    """

    def __init__(self, cluster: str, upstream: str) -> None:
        keys = Keys(cluster)
        self.votes: Final = keys.votes(upstream)
        self.members: Final = keys.members
        self.state: Final = keys.state(upstream)
        self.stream: Final = keys.stream
        self.traffic: Final = partial(keys.traffic, upstream)


class Ballot(NamedTuple):
    """A vote on one destination, with the record that is written if it decides.

    Attributes:
        digest: Digest of its address.
        pool: Number of destinations.
        max_share: ``ejection.max_share``.
        window: ``ejection.window``.
        votes: Number of votes that the record names.
        checked: The votes whose signature was checked, as ``checked_vote`` gives them.
        upstream: Name of the upstream.
        field: Field of the record.
        version: Version of the record.
        record: The signed record.
    """

    digest: str
    pool: int
    max_share: float
    window: float
    votes: int
    checked: Collection[str]
    upstream: str
    field: str
    version: int
    record: bytes


class Count(NamedTuple):
    """What came of a vote.

    Attributes:
        outcome: ``taken`` if nothing was counted; ``suspect`` if this process is not counted;
            ``open`` for too few votes; ``full`` if ``max_share`` is reached; ``runs`` if the
            destination is ejected by votes already; ``check`` if the votes that were checked are
            too few, or fewer than the record names; ``older`` if its version is too low;
            ``ejected``.
        voters: Number of votes; for ``check`` the number of checked votes; for ``older`` the
            version in the store.
        senders: Number of processes with requests to the destination.
        unchecked: For ``check`` the votes that have to be checked, by process.
    """

    outcome: Outcome
    voters: int
    senders: int
    unchecked: Mapping[bytes, bytes] = MappingProxyType({})


def checked_vote(process: bytes, vote: bytes) -> str:
    """Give what stands for a vote whose signature was checked."""
    return "".join([sha1(one, usedforsecurity=False).hexdigest() for one in (process, vote)])


async def cast(
    store: Store,
    keys: VoteKeys,
    process: str,
    votes: bytes,
    ballot: Ballot | None = None,
) -> Count:
    """Replace the votes of this process, and decide on one of them.

    Args:
        store: The store.
        keys: The keys of the upstream.
        process: This process.
        votes: All of its votes, signed; empty for none.
        ballot: The one to be decided on.

    Raises:
        StoreLost: The store cannot be reached.
    """
    names = [keys.votes, keys.members, keys.state, keys.stream]
    if ballot is None:
        result = await store.run(_CAST, names, process, votes, "")
    else:
        result = await store.run(
            _CAST,
            [*names, keys.traffic(ballot.digest)],
            *(process, votes, ballot.digest, ballot.pool, ballot.max_share),
            *(max(1, round(ballot.window * 1000)), ALIVE_MS, ballot.votes),
            *(ballot.field, ballot.version, ballot.record, ballot.upstream),
            " ".join(ballot.checked),
        )
    outcome, voters, senders, flat = result
    unchecked = dict(zip(flat[::2], flat[1::2], strict=True))
    return Count(outcome.decode(), int(voters), int(senders), unchecked)


async def mark_traffic(
    store: Store, keys: VoteKeys, process: str, digests: Sequence[str], window: float
) -> None:
    """Note that this process sends requests to destinations.

    Args:
        store: The store.
        keys: The keys of the upstream.
        process: This process.
        digests: Digests of the addresses.
        window: ``ejection.window``.

    Raises:
        StoreLost: The store cannot be reached.
    """
    for first in range(0, len(digests), _MARKS_AT_ONCE):
        names = [keys.traffic(one) for one in digests[first : first + _MARKS_AT_ONCE]]
        await store.run(_MARK, names, process, max(1, round(window * 1000)))
