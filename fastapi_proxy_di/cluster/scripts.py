"""The scripts of the state that processes share. Each gets all of its keys; all are in one slot."""

from __future__ import annotations

from typing import Final

from fastapi_proxy_di.cluster.store import Script

__all__ = ["ALIVE_MS", "BEAT", "BEATS", "FORGET", "LEAVE", "MEMBERS", "READ", "WRITE"]

ALIVE_MS: Final = 3000
"""Milliseconds after its last beat for which a process counts as alive."""

_LISTED_MS: Final = 3600000
"""Milliseconds for which a process that no longer beats stays listed, so that it can be named."""

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

# ARGV: upstream, field, version, record, and a value that is replaced whatever its version is.
# Versions that no clock gives are forged; above 2^53 they could not be compared either.
WRITE: Final = Script(
    """
    local known = redis.call('HGET', KEYS[1], ARGV[2])
    local version = known and known ~= ARGV[5] and tonumber(string.match(known, '^(%d+)|'))
    if version and version < 9e15 and version >= tonumber(ARGV[3]) then
        return {'', string.format('%.0f', version)}
    end
    redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. '|' .. ARGV[4])
    return {redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', 'upstream', ARGV[1],
        'field', ARGV[2], 'version', ARGV[3], 'record', ARGV[4]), ''}
    """
)
"""Writes a record and its entry in the stream, unless a version is there that is not lower."""

READ: Final = Script(
    _ENDS
    + """
    local found = {epoch(KEYS[1], ARGV[1]), last(KEYS[2])}
    for i = 3, #KEYS do found[i] = redis.call('HGETALL', KEYS[i]) end
    return found
    """
)
"""Gives the epoch, the id of the last entry and the records of each upstream."""

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
    redis.call('SET', KEYS[4], ARGV[3], 'PX', {ALIVE_MS})
    redis.call('ZADD', KEYS[3], text(now), ARGV[2])
    redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text(now - {_LISTED_MS}))
    return {{epoch(KEYS[1], ARGV[1]), first(KEYS[2]), last(KEYS[2]), now,
        redis.call('ZCOUNT', KEYS[3], text(now - {ALIVE_MS}), '+inf')}}
    """
)
"""Tells that a process is alive; gives the epoch, the ends of the stream, the time in
milliseconds and the number of processes that are alive."""

MEMBERS: Final = Script("return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')")
"""Gives the processes, each with the time of its last beat."""

BEATS: Final = Script("return redis.call('MGET', unpack(KEYS))")
"""Gives the records of the processes that are alive."""

LEAVE: Final = Script("redis.call('ZREM', KEYS[1], ARGV[1]) redis.call('DEL', KEYS[2])")
"""Removes a process that ends in order."""
