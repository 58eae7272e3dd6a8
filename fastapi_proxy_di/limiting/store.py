"""Counts in the store: the twin of ``limiting.window`` in Lua, in one trip.

The time is the store's. A moving window is a list of takes, ``<time> <cost> <sum of all costs>``;
two windows are a text, ``<index> <taken> <previous>``. Each key expires when its window has passed.
If the store's clock goes backwards by less than a window, time stands still for the key until it
has caught up; if by more, the key begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi_proxy_di.cluster.store import Script, Store
from fastapi_proxy_di.limiting.rates import Rate
from fastapi_proxy_di.limiting.window import EXACT, Standing

__all__ = ["TAKE", "take"]

TAKE: Final = Script(
    """
local time = redis.call('TIME')
local clock, cost, exact = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])

local function numbers(text)
  local a, b, c = string.match(text, '^(%d+) (%d+) (%d+)$')
  return tonumber(a), tonumber(b), tonumber(c)
end

local function text(a, b, c)
  return string.format('%.0f %.0f %.0f', a, b, c)
end

local function moving(key, limit, length)
  local now, sum, before, wait, latest, _ = clock, 0, 0, 0
  local last = redis.call('LINDEX', key, -1)
  if last then
    latest, _, sum = numbers(last)
    if latest - now > length then
      redis.call('DEL', key)
      latest, sum = nil, 0
    else
      now = math.max(now, latest)
    end
  end
  before = sum
  while latest do
    local first = redis.call('LINDEX', key, 0)
    if not first then latest = nil break end
    local at, taken, so_far = numbers(first)
    if at > now - length then before = so_far - taken break end
    redis.call('LPOP', key)
  end
  local used = sum - before
  if cost > limit then
    wait = length
  elseif used + cost > limit then
    local index = 0
    repeat
      local at, _, so_far = numbers(redis.call('LINDEX', key, index))
      wait, index = at + length - now, index + 1
    until sum - so_far + cost <= limit
  end
  local function add()
    if cost == 0 then return end
    used, sum, latest = used + cost, sum + cost, now
    redis.call('RPUSH', key, text(now, cost, sum))
    redis.call('PEXPIRE', key, length / 1000)
  end
  local function standing()
    return limit - used, latest and latest + length - now or 0
  end
  return wait, add, standing
end

local function two(key, limit, length)
  local index, elapsed, taken, previous, wait = math.floor(clock / length), clock % length, 0, 0, 0
  local known = redis.call('GET', key)
  if known then
    local i, t, p = numbers(known)
    if i == index + 1 then index, elapsed = i, 0 end
    if i == index then taken, previous = t, p elseif i + 1 == index then previous = t end
  end
  local function used() return taken + previous * (length - elapsed) / length end
  if cost > limit then
    wait = length
  elseif used() + cost > limit then
    if taken + cost <= limit then
      wait = length * (1 - (limit - taken - cost) / previous) - elapsed
    else
      wait = length * (1 - (limit - cost) / taken) + (length - elapsed)
    end
    wait = math.max(1, math.ceil(wait))
  end
  local function add()
    taken = taken + cost
    redis.call('SET', key, text(index, taken, previous), 'PX', length / 500)
  end
  local function standing()
    local reset = 0
    if taken > 0 then reset = 2 * length - elapsed
    elseif previous > 0 then reset = length - elapsed end
    return math.max(0, math.floor(limit - used())), reset
  end
  return wait, add, standing
end

local waits, adds, standings, refused, result = {}, {}, {}, false, {}
for i, key in ipairs(KEYS) do
  local limit, length = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local kind = limit <= exact and moving or two
  waits[i], adds[i], standings[i] = kind(key, limit, length)
  refused = refused or waits[i] > 0
end
for i in ipairs(KEYS) do
  if not refused then adds[i]() end
  local remaining, reset = standings[i]()
  result[i] = {remaining, waits[i], reset}
end
return result
"""
)
"""Takes a cost from all rates or from none. Arguments: the cost, the highest limit that is counted
exactly, then limit and window in microseconds of each key's rate."""


async def take(
    store: Store, keys: Sequence[str], rates: Sequence[Rate], cost: int
) -> list[Standing]:
    """Take ``cost`` from all rates, or from none if one of them refuses it.

    Args:
        store: The store.
        keys: The key of each rate.
        rates: The rates.
        cost: How much.

    Raises:
        StoreLost: The store did not respond in time, or is lost.
    """
    numbers = [number for rate in rates for number in (rate.limit, rate.window)]
    return [Standing(*one) for one in await store.run(TAKE, keys, cost, EXACT, *numbers)]
