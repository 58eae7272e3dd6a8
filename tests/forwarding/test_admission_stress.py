"""The queue under random traffic: no lost wake-up, no place given twice, first in first out."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from fastapi_proxy_di.errors import LimitExceeded, NoAvailableDestination
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.unavailable import unavailable
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.settings import EjectionSettings, LimitSettings
from fastapi_proxy_di.supervision.events import Events
from fastapi_proxy_di.supervision.supervisor import Supervisor
from tests.forwarding.samples import watched_exchange
from tests.pools.samples import pool_of, settings_of
from tests.support.virtual_time import run_virtually


class Traffic:
    """Requests that come, wait, leave and end at random, at a pool that changes at random."""

    def __init__(self, random: Random, limit: int | None) -> None:
        self.random = random
        self.limit = limit
        self.pool = pool_of(3, max_in_flight=2, max_requests=20)
        supervisor = Supervisor(
            self.pool,
            Ejector(self.pool, EjectionSettings()),
            Threshold(2, 1),
            SlowStart(0),
            Events(),
            window=5.0,
        )
        limits = LimitSettings(max_in_flight=limit, queue=8, queue_timeout=3)
        self.admission = Admission(supervisor, limits, None)
        self.send = self.admission.around(self._send)
        self.arrived = self.queued = 0
        self.sent: list[int] = []
        self.numbers: dict[Exchange, int] = {}
        self.tasks: list[asyncio.Task[str]] = []

    async def _send(self, exchange: Exchange) -> None:
        free = [one for tier in self.pool.tiers for one in tier if not one.full]
        if not free:
            raise unavailable(self.pool, (), 1.0, 1.0)
        exchange.take_place(free[0])
        exchange.begin_attempt()
        self.sent.append(self.numbers[exchange])

    async def request(self) -> str:
        """Run one request to its end; give what became of it."""
        exchange = watched_exchange(None)
        self.numbers[exchange] = self.arrived
        self.arrived += 1
        try:
            await self.send(exchange)
        except LimitExceeded:
            return "limited"
        except NoAvailableDestination:
            return "none"
        else:
            try:
                await asyncio.sleep(self.random.random())
            finally:
                exchange.end_attempt()
                self.admission.leave()
            return "served"
        finally:
            exchange.watcher.end(exchange)

    def change(self) -> None:
        """Change something at random."""
        random = self.random
        destination = random.choice(self.pool.destinations)
        what = random.random()
        if what < 0.55:
            self.tasks.append(asyncio.get_running_loop().create_task(self.request()))
        elif what < 0.65 and self.tasks:
            random.choice(self.tasks).cancel()
        elif what < 0.75:
            self.pool.set_health(destination, not destination.healthy)
        elif what < 0.78:
            self.pool.drain(destination)
        elif what < 0.85:
            self.pool.undrain(destination)
        elif what < 0.9:
            kept = random.sample(range(4), random.randint(1, 4))
            self.pool.replace([settings_of(at, max_in_flight=2, max_requests=20) for at in kept])

    def check(self) -> None:
        """Check what must hold whenever nothing is about to happen."""
        assert all(one.in_flight <= 2 for one in self.pool.destinations)
        assert self.limit is None or self.admission.in_flight <= self.limit
        self.queued += self.admission.waiting
        if self.admission.waiting:
            assert not self.admission._has_place(), "a request waits although there is a place"


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("seed", range(20))
def test_queue_under_random_traffic(seed: int, limit: int | None) -> None:
    """After each change, once the loop has run, nobody waits while there is a place."""

    async def scenario() -> Traffic:
        traffic = Traffic(Random(seed), limit)
        for _ in range(300):
            traffic.change()
            if traffic.random.random() < 0.5:
                await asyncio.sleep(traffic.random.random() * 0.3)
                for _ in range(20):
                    await asyncio.sleep(0)
                traffic.check()
        await asyncio.wait(traffic.tasks)
        return traffic

    traffic = run_virtually(scenario())

    assert traffic.sent == sorted(traffic.sent)
    assert traffic.admission.in_flight == traffic.admission.waiting == 0
    assert traffic.queued > 0
    assert "served" in {task.result() for task in traffic.tasks if not task.cancelled()}
