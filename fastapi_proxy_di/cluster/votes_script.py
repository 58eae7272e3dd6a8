"""The script that takes the votes of a process, counts those of all, and writes the decision.

It alone counts, so that ``ejection.max_share`` holds for all processes together, whatever is voted
at the same time. Its time is the store's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, Literal, NamedTuple, TypeAlias

from fastapi_proxy_di.cluster.keys import Keys
from fastapi_proxy_di.cluster.scripts import ALIVE_MS
from fastapi_proxy_di.cluster.store import Script, Store

__all__ = ["Ballot", "Count", "Outcome", "VoteKeys", "cast", "mark_traffic"]

Outcome: TypeAlias = Literal[
    "taken", "suspect", "open", "full", "recount", "older", "runs", "ejected"
]

# A member is alive for as long as its beat is kept. A process with votes on more than half of the
# pool counts neither as a voter nor as one with traffic.
_CAST: Final = Script(
    """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local process, digest, pool = ARGV[1], ARGV[3], tonumber(ARGV[4])

    local mine = {}
    for one, left in string.gmatch(ARGV[2], '(%x+)=(%d+)') do
        mine[#mine + 1] = one .. '=' .. string.format('%d', now + left)
    end
    if #mine == 0 then
        redis.call('HDEL', KEYS[1], process)
    else
        redis.call('HSET', KEYS[1], process, table.concat(mine, ' '))
        redis.call('PEXPIRE', KEYS[1], 3600000)
    end
    if digest == '' then return {'taken', 0, 0} end

    local window = tonumber(ARGV[6])
    redis.call('ZADD', KEYS[5], now, process)
    redis.call('PEXPIRE', KEYS[5], window)
    local alive = {}
    for _, one in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], now - ARGV[7], '+inf')) do
        alive[one] = true
    end
    local suspects, voters, senders = {}, 0, 0
    local votes = redis.call('HGETALL', KEYS[1])
    for i = 1, #votes, 2 do
        if not alive[votes[i]] then
            redis.call('HDEL', KEYS[1], votes[i])
        else
            local count, this = 0, 0
            for one, ends in string.gmatch(votes[i + 1], '(%x+)=(%d+)') do
                if tonumber(ends) > now then
                    count = count + 1
                    if one == digest then this = 1 end
                end
            end
            if count * 2 > pool then
                suspects[votes[i]] = true
            else
                voters = voters + this
            end
        end
    end
    if suspects[process] then return {'suspect', 0, 0} end
    redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - window)
    for _, one in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
        if alive[one] and not suspects[one] then senders = senders + 1 end
    end
    if voters < 2 or voters * 2 < senders then return {'open', voters, senders} end

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
                if runs then return {'runs', voters, senders} end
            elseif runs then
                running = running + 1
            end
        end
    end
    if running >= math.max(1, math.floor(tonumber(ARGV[5]) * pool)) then
        return {'full', voters, senders}
    end
    if voters ~= tonumber(ARGV[8]) then return {'recount', voters, senders} end
    if known and known < 9e15 and known >= tonumber(ARGV[10]) then
        return {'older', known, senders}
    end
    redis.call('HSET', KEYS[3], ARGV[9], ARGV[10] .. '|' .. ARGV[11])
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', 10000, '*', 'upstream', ARGV[12],
        'field', ARGV[9], 'version', ARGV[10], 'record', ARGV[11])
    return {'ejected', voters, senders}
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
    upstream: str
    field: str
    version: int
    record: bytes


class Count(NamedTuple):
    """What came of a vote.

    Attributes:
        outcome: ``taken`` if nothing was counted; ``suspect`` if this process is not counted;
            ``open`` for too few votes; ``full`` if ``max_share`` is reached; ``runs`` if the
            destination is ejected by votes already; ``recount`` if the record names another
            number of votes; ``older`` if its version is too low; ``ejected``.
        voters: Number of votes; the version in the store for ``older``.
        senders: Number of processes with requests to the destination.
    """

    outcome: Outcome
    voters: int
    senders: int


async def cast(
    store: Store,
    keys: VoteKeys,
    process: str,
    votes: Mapping[str, float],
    ballot: Ballot | None = None,
) -> Count:
    """Replace the votes of this process, and decide on one of them.

    Args:
        store: The store.
        keys: The keys of the upstream.
        process: This process.
        votes: All of its votes: digests of addresses, each with the seconds that it holds.
        ballot: The one to be decided on.

    Raises:
        StoreLost: The store cannot be reached.
    """
    text = " ".join([f"{one}={max(1, round(left * 1000))}" for one, left in votes.items()])
    names = [keys.votes, keys.members, keys.state, keys.stream]
    if ballot is None:
        result = await store.run(_CAST, names, process, text, "")
    else:
        result = await store.run(
            _CAST,
            [*names, keys.traffic(ballot.digest)],
            *(process, text, ballot.digest, ballot.pool, ballot.max_share),
            *(max(1, round(ballot.window * 1000)), ALIVE_MS, ballot.votes),
            *(ballot.field, ballot.version, ballot.record, ballot.upstream),
        )
    return Count(result[0].decode(), int(result[1]), int(result[2]))


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
