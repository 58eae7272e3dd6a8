"""The scripts of the state that processes share. Each gets all of its keys; all are in one slot."""

from __future__ import annotations

from typing import Final

from fastapi_proxy_di.cluster.store import Script

__all__ = ["ALIVE_MS", "BEAT", "BEATS", "ENDS", "FORGET", "LEAVE", "MEMBERS", "PIECE", "WRITE"]

ALIVE_MS: Final = 3000
"""Milliseconds after its last beat for which a process counts as alive."""

_LISTED_MS: Final = 3600000
"""Milliseconds for which a process that no longer beats stays listed, with its last beat, so that
it can be named."""

_ENDS: Final = """
    local function id(entries) return entries[1] and entries[1][1] or '0-0' end
    local function first(key) return id(redis.call('XRANGE', key, '-', '+', 'COUNT', 1)) end
    local function last(key) return id(redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)) end
    local function epoch(key, fresh)
        local known = redis.call('GET', key)
        if not known then redis.call('SET', key, fresh) end
        return known or fresh
    end
"""

# ARGV: upstream, then of each record field, version, record, and a value that is replaced whatever
# its version is. Versions that no clock gives are forged; above 2^53 they could not be compared
# either.
WRITE: Final = Script(
    """
    local result = {}
    for i = 2, #ARGV, 4 do
        local field, mine, record = ARGV[i], ARGV[i + 1], ARGV[i + 2]
        local known = redis.call('HGET', KEYS[1], field)
        local version = known and known ~= ARGV[i + 3] and tonumber(string.match(known, '^(%d+)|'))
        if version and version < 9e15 and version >= tonumber(mine) then
            result[#result + 1] = {'', string.format('%.0f', version)}
        else
            redis.call('HSET', KEYS[1], field, mine .. '|' .. record)
            result[#result + 1] = {redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*',
                'upstream', ARGV[1], 'field', field, 'version', mine, 'record', record), ''}
        end
    end
    return result
    """
)
"""Writes records and their entries in the stream, unless a version is there that is not lower.
Gives of each the id of the entry, or the version that is there."""

ENDS: Final = Script(_ENDS + "return {epoch(KEYS[1], ARGV[1]), last(KEYS[2])}")
"""Gives the epoch and the id of the last entry."""

PIECE: Final = Script("return redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 200)")
"""Gives some records of an upstream from a cursor on, and the next cursor, 0 at the end. Records
that change meanwhile are in the stream after the entry that was the last one before."""

FORGET: Final = Script(
    """
    for i = 1, #ARGV, 2 do
        if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
            redis.call('HDEL', KEYS[1], ARGV[i])
        end
    end
    """
)
"""Removes fields that have not changed. Arguments: each field and its value."""

BEAT: Final = Script(
    _ENDS
    + f"""
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local function text(number) return string.format('%.0f', number) end
    redis.call('SET', KEYS[4], ARGV[3], 'PX', {_LISTED_MS})
    redis.call('ZADD', KEYS[3], text(now), ARGV[2])
    redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text(now - {_LISTED_MS}))
    return {{epoch(KEYS[1], ARGV[1]), first(KEYS[2]), last(KEYS[2]), now,
        redis.call('ZCOUNT', KEYS[3], text(now - {ALIVE_MS}), '+inf')}}
    """
)
"""Tells that a process is alive; gives the epoch, the ends of the stream, the time in
milliseconds and the number of processes that are alive."""

MEMBERS: Final = Script("return redis.call('ZRANGE', KEYS[1], -ARGV[1], -1, 'WITHSCORES')")
"""Gives so many processes, those with the newest beats, each with the time of its last one."""

BEATS: Final = Script("return redis.call('MGET', unpack(KEYS))")
"""Gives the last beats of processes."""

LEAVE: Final = Script("redis.call('ZREM', KEYS[1], ARGV[1]) redis.call('DEL', KEYS[2])")
"""Removes a process that ends in order."""
