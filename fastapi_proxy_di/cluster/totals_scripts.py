"""The scripts of totals. Each gets all of its keys; all are in one slot."""

from __future__ import annotations

from typing import Final

from fastapi_proxy_di.cluster.store import Script

__all__ = ["ENDED", "FOLD", "KEEP_MS", "OFFER", "READ_ROWS", "READ_SERIES", "SEND", "VERSION"]

KEEP_MS: Final = 7 * 24 * 3600 * 1000
"""Milliseconds after the last report for which the totals of an upstream are kept."""

VERSION: Final = b"#version"
"""Field of the sum of what has ended: how often a series was added. No address begins so."""

_ANSWER_BYTES: Final = 65536
"""About how many bytes of rows one script gives."""

_NOW: Final = """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

SEND: Final = Script(
    _NOW
    + f"""
    local results, at = {{}}, 1
    local function take() at = at + 1 return ARGV[at - 1] end
    for i = 1, #KEYS, 3 do
        local series, rows, gone = KEYS[i], KEYS[i + 1], KEYS[i + 2]
        local name, fresh, removed, set = take(), take(), tonumber(take()), tonumber(take())
        local result = 'ok'
        if redis.call('HGET', rows, '#folded') then
            result = 'folded'
        elseif fresh == '' and not redis.call('HGET', rows, '#series') then
            result = 'lost'
        end
        for _ = 1, removed do
            local field = take()
            if result == 'ok' then redis.call('HDEL', rows, field) end
        end
        for _ = 1, set do
            local field, record = take(), take()
            if result == 'ok' then redis.call('HSET', rows, field, record) end
        end
        if result == 'ok' then
            redis.call('HSET', rows, '#series', '1')
            redis.call('ZADD', series, string.format('%.0f', now), name)
            for _, key in ipairs({{series, rows, gone}}) do
                redis.call('PEXPIRE', key, {KEEP_MS})
            end
        end
        results[#results + 1] = result
        results[#results + 1] = redis.call('HGET', gone, '#version') or ''
    end
    return results
    """
)
"""Writes rows of the totals of one process, of several upstreams.

Keys: of each upstream the names of the series, the rows and the sum of what has ended. Arguments:
of each the name of the series, whether it is new, how many rows are removed and set, and these.

Gives for each ``ok``, ``folded`` if the series counts as ended, or ``lost`` if the store has lost
it, and the version of the sum of what has ended."""

ENDED: Final = Script(
    _NOW
    + """
    local found = {}
    for i, key in ipairs(KEYS) do
        found[i] = redis.call('ZRANGEBYSCORE', key, '-inf', string.format('%.0f', now - ARGV[1]))
    end
    return found
    """
)
"""Gives for each upstream the series that have reported nothing for so many milliseconds."""

READ_SERIES: Final = Script(
    """
    return {redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2])}
    """
)
"""Gives the series of an upstream with the time of their last report, and what has ended."""

READ_ROWS: Final = Script(
    f"""
    local found, bytes = {{redis.call('HGET', KEYS[1], '#version') or ''}}, 0
    for i = 2, #KEYS do
        found[i] = redis.call('HGETALL', KEYS[i])
        for _, text in ipairs(found[i]) do bytes = bytes + #text end
        if bytes > {_ANSWER_BYTES} then break end
    end
    return found
    """
)
"""Gives the version of the sum of what has ended, and the rows of as many of the series as fit."""

FOLD: Final = Script(
    f"""
    local version = redis.call('HGET', KEYS[3], '#version') or ''
    local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
    if not score or score ~= ARGV[2] or version ~= ARGV[3] then
        return ''
    end
    redis.call('DEL', KEYS[3])
    for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
    version = tonumber(version) or 0
    version = string.format('%.0f', version + 1)
    redis.call('HSET', KEYS[3], '#version', version)
    redis.call('PEXPIRE', KEYS[3], {KEEP_MS})
    redis.call('ZREM', KEYS[1], ARGV[1])
    redis.call('HSET', KEYS[2], '#folded', '1')
    redis.call('PEXPIRE', KEYS[2], {KEEP_MS})
    return version
    """
)
"""Takes a new sum of what has ended, with a series in it, which then counts no more.

Arguments: the series, the time of its last report and the version of the sum, as they were read;
the rows of the new sum. Does nothing, and gives nothing, if one of them has changed meanwhile: so
a series is added once, and none that has reported since. The rows of the series stay, so that
its process, if it goes on after all, learns what was counted."""

OFFER: Final = Script(
    f"""
    if redis.call('HGET', KEYS[1], '#version') then return end
    for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
    redis.call('PEXPIRE', KEYS[1], {KEEP_MS})
    """
)
"""Gives a store that has lost it the sum of what has ended. Arguments: all fields."""
