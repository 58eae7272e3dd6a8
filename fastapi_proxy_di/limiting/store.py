"""Counts in the store: the twin of ``limiting.window`` in Lua, many takes in one trip.

The time is the store's. A moving window is a list of takes, ``<time> <cost> <sum of all costs>``;
two windows are a text, ``<index> <taken> <previous>``. Each key expires when its window has passed.
If the store's clock goes backwards by less than a window, time stands still for the key until it
has caught up; if by more, the key begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from fastapi_proxy_di.cluster.store import Script, Store
from fastapi_proxy_di.limiting.rates import Rate
from fastapi_proxy_di.limiting.window import EXACT, Standing

__all__ = ["TAKE", "Take", "numbers_of", "standings_of", "take_all"]

TAKE: Final = Script(
    """
local time = redis.call('TIME')
local clock, exact = time[1] * 1000000 + time[2], tonumber(ARGV[1])

local function numbers(text)
  if #text > 50 then return end
  local a, b, c = string.match(text, '^(%d+) (%d+) (%d+)$')
  return tonumber(a), tonumber(b), tonumber(c)
end

local function text(a, b, c)
  return string.format('%.0f %.0f %.0f', a, b, c)
end

local function moving(key, limit, length, cost)
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
    local low, high = 0, redis.call('LLEN', key) - 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      local _, _, so_far = numbers(redis.call('LINDEX', key, middle))
      if sum - so_far + cost <= limit then high = middle else low = middle + 1 end
    end
    wait = numbers(redis.call('LINDEX', key, low)) + length - now
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

local function two(key, limit, length, cost)
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

local at = 0

local function take(numbers)
  local cost, rates = nil, {}
  for number in string.gmatch(numbers, '%d+') do
    if cost then rates[#rates + 1] = tonumber(number) else cost = tonumber(number) end
  end
  local first, waits, adds, standings, refused, results = at, {}, {}, {}, false, {}
  at = at + #rates / 2
  for i = 1, #rates / 2 do
    local limit, length = rates[2 * i - 1], rates[2 * i]
    local kind = limit <= exact and moving or two
    waits[i], adds[i], standings[i] = kind(KEYS[first + i], limit, length, cost)
    refused = refused or waits[i] > 0
  end
  for i = 1, #waits do
    if not refused then adds[i]() end
    local remaining, reset = standings[i]()
    results[i] = text(remaining, waits[i], reset)
  end
  return table.concat(results, ' ')
end

local results = {}
for i = 2, #ARGV do
  local done, result = pcall(take, ARGV[i])
  if not done then
    local reason = type(result) == 'table' and result.err or result
    -- What is in a key is the fault of this take alone.
    if not (string.find(reason, 'WRONGTYPE') or string.find(reason, 'attempt to')) then
      return redis.error_reply(reason)
    end
    result = ''
  end
  results[#results + 1] = result
end
return table.concat(results, ',')
"""
)
"""Takes a cost from all rates or from none, and so for each take in turn. Arguments: the highest
limit that is counted exactly, then for each take the cost, and limit and window in microseconds of
each rate. Keys: those of all rates of all takes. Gives what remains, the wait and the reset of each
rate; nothing for a take whose keys have something else in them."""


class Take(NamedTuple):
    """What is to be taken.

    Attributes:
        keys: The key of each rate.
        numbers: The cost, then limit and window of each rate.
    """

    keys: Sequence[str]
    numbers: str


def numbers_of(rates: Sequence[Rate], cost: int) -> str:
    """Give the numbers of a `Take`."""
    return str(cost) + "".join([f" {rate.limit} {rate.window}" for rate in rates])


async def take_all(store: Store, takes: Sequence[Take]) -> list[list[Standing]]:
    """Take what each asks for, from all of its rates or from none if one of them refuses it.

    Args:
        store: The store.
        takes: The takes.

    Returns:
        How each stands with its rates; nothing for a take whose keys have something else in them.

    Raises:
        StoreLost: The store did not respond in time, or is lost.
    """
    keys = [key for take in takes for key in take.keys]
    text = await store.run(TAKE, keys, EXACT, *[take.numbers for take in takes])
    return standings_of(text)


def standings_of(text: bytes) -> list[list[Standing]]:
    """Read what the script gives."""
    found = []
    for one in text.split(b","):
        numbers = [*map(int, one.split())]
        found.append([Standing(*numbers[at : at + 3]) for at in range(0, len(numbers), 3)])
    return found
