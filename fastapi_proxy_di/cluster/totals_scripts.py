"""The scripts of totals. Each gets all of its keys; all are in one slot."""

from __future__ import annotations

from typing import Final

from fastapi_proxy_di.cluster.store import Script

__all__ = ["ENDED", "FOLD", "KEEP_MS", "OFFER", "READ_ROWS", "READ_SERIES", "SEND", "STAGE"]

KEEP_MS: Final = 7 * 24 * 3600 * 1000
"""Milliseconds after the last report for which the totals of an upstream are kept."""

_ANSWER_BYTES: Final = 32768
"""About how many bytes of rows one script gives."""

_ROWS_AT_ONCE: Final = 100
_STAGED_MS: Final = 60000
"""Milliseconds for which a sum that is being written in parts is kept."""

_NOW: Final = """
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_ADOPT: Final = f"""
    local function adopt(staged, count, gone)
        local found = redis.call('HGETALL', staged)
        if #found ~= 2 * count then return false end
        redis.call('DEL', gone, staged)
        for i = 1, #found, 2 do redis.call('HSET', gone, found[i], found[i + 1]) end
        redis.call('PEXPIRE', gone, {KEEP_MS})
        return true
    end
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
    return {redis.call('HGET', KEYS[2], '#version') or '',
        redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')}
    """
)
"""Gives the version of the sum of what has ended, and the series with the time of their last
report."""

READ_ROWS: Final = Script(
    f"""
    local results, bytes = {{redis.call('HGET', KEYS[2], '#version') or '', '0'}}, 0
    for i = 3, #KEYS do
        local from = i == 3 and ARGV[1] or '0'
        local found = redis.call('HSCAN', KEYS[i], from, 'COUNT', {_ROWS_AT_ONCE})
        for n, text in ipairs(found[2]) do found[2][n] = struct.pack('>I4', #text) .. text end
        local text = table.concat(found[2])
        results[#results + 1] = redis.call('ZSCORE', KEYS[1], ARGV[i - 1]) or ''
        results[#results + 1] = text
        results[2] = found[1]
        bytes = bytes + #text
        if found[1] ~= '0' or bytes > {_ANSWER_BYTES} then break end
    end
    return results
    """
)
"""Gives fields of series, as many as fit.

Keys: the series, the sum of what has ended, then of each series its rows. Arguments: where to go on
in the first of them, then the name of each.

Gives the version of the sum of what has ended, where to go on in the last series that is given,
``0`` if all of it is, and of each series the time of its last report and the fields: as one text,
because a client takes long to read thousands, each name and value with its length before it."""

STAGE: Final = Script(
    f"""
    if ARGV[1] ~= '' then redis.call('DEL', KEYS[1]) end
    for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
    redis.call('PEXPIRE', KEYS[1], {_STAGED_MS})
    """
)
"""Writes fields of a new sum of what has ended. Arguments: whether they are the first, and they."""

FOLD: Final = Script(
    _ADOPT
    + f"""
    local version = redis.call('HGET', KEYS[3], '#version') or ''
    local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
    if not score or score ~= ARGV[2] or version ~= ARGV[3] then return '' end
    if not adopt(KEYS[4], tonumber(ARGV[4]), KEYS[3]) then return '' end
    version = string.format('%.0f', (tonumber(version) or 0) + 1)
    redis.call('HSET', KEYS[3], '#version', version)
    redis.call('ZREM', KEYS[1], ARGV[1])
    redis.call('HSET', KEYS[2], '#folded', '1')
    redis.call('PEXPIRE', KEYS[2], {KEEP_MS})
    return version
    """
)
"""Takes the new sum of what has ended, with a series in it, which then counts no more.

Keys: the series, the rows of this one, the sum, and the new sum. Arguments: the name of the series,
the time of its last report and the version of the sum, as they were read; the number of fields of
the new sum. Does nothing, and gives nothing, if one of them has changed meanwhile: so
a series is added once, and none that has reported since. The rows of the series stay, so that
its process, if it goes on after all, learns what was counted."""

OFFER: Final = Script(
    _ADOPT
    + """
    if redis.call('HGET', KEYS[1], '#version') then return end
    adopt(KEYS[2], tonumber(ARGV[1]), KEYS[1])
    """
)
"""Gives a store that has lost it the sum of what has ended. Argument: the number of its fields."""
