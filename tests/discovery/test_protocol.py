"""The pauses of a search, in virtual time."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from fastapi_proxy_di.discovery.protocol import Search
from fastapi_proxy_di.settings import DiscoverySettings
from tests.discovery.samples import at
from tests.support.virtual_time import run_virtually


class Middle(Random):
    """Draws the middle, so that nothing varies."""

    def random(self) -> float:
        """Give one half."""
        return 0.5


def search(**fields: Any) -> Search:
    """Give a search in the running loop."""
    return Search(at("dns+http://a"), DiscoverySettings(**fields), 5.0, Middle())


def test_pause_lasts_as_long_as_the_ttl_or_the_setting() -> None:
    """Within 1 and 30 seconds, where the setting is not given."""

    async def run() -> list[float]:
        loop, seconds = asyncio.get_running_loop(), []
        for one, ttl in ((search(), 0.0), (search(), 7.0), (search(refresh=99), 7.0)):
            began = loop.time()
            await one.pause(ttl)
            seconds.append(round(loop.time() - began, 3))
        return seconds

    assert run_virtually(run()) == [1, 7, 99]


def test_failed_dials_end_a_pause_at_most_once_a_second() -> None:
    """At once if the last look-up is some time ago."""

    async def run() -> list[float]:
        loop, one, seconds = asyncio.get_running_loop(), search(), []
        began = loop.time()
        loop.call_later(5, one.hurry)
        loop.call_later(5.2, one.hurry)
        for _ in range(3):
            await one.pause(20)
            seconds.append(round(loop.time() - began, 3))
        return seconds

    assert run_virtually(run()) == [5, 6, 26]


def test_failed_dial_during_a_look_up_leads_to_another_one() -> None:
    """The response under way may be from before the change."""

    async def run() -> float:
        loop, one = asyncio.get_running_loop(), search()
        await one.pause(1)
        began = loop.time()
        one.hurry()
        await one.pause(20)
        return round(loop.time() - began, 3)

    assert run_virtually(run()) == 1


def test_short_refresh_is_not_made_longer_by_a_failed_dial() -> None:
    """The pause ends when it would have ended anyway."""

    async def run() -> float:
        loop, one = asyncio.get_running_loop(), search(refresh=0.2)
        began = loop.time()
        one.hurry()
        await one.pause()
        return round(loop.time() - began, 3)

    assert run_virtually(run()) == 0.2


def test_source_may_pause_twice_at_the_same_time() -> None:
    """The later pause ends early, the earlier one in its time."""

    async def run() -> list[float]:
        loop, one = asyncio.get_running_loop(), search()
        began = loop.time()

        async def pause(seconds: float) -> float:
            await one.pause(seconds)
            return round(loop.time() - began, 3)

        tasks = [asyncio.create_task(pause(seconds)) for seconds in (7, 9)]
        loop.call_later(3, one.hurry)
        return await asyncio.gather(*tasks)

    assert run_virtually(run()) == [7, 3]
