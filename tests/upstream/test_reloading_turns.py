"""Reloads at the same time, cancelled ones, and those of an upstream that is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_proxy_di import SettingsError, UpstreamClosed
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.wire.addresses import Address
from tests.support.gateways import billing
from tests.support.held import holding

pytestmark = pytest.mark.e2e


async def test_reloads_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one waits for the first, so the last caller's settings win."""
    async with holding() as held:
        entered = asyncio.Event()
        go = asyncio.Event()
        transports = held.gate.balancer._running.transports
        renewed = transports.renewed
        order: list[float] = []

        async def slow(settings: UpstreamSettings) -> TransportFactory:
            order.append(settings.slow_start)
            entered.set()
            await go.wait()
            return await renewed(settings)

        monkeypatch.setattr(type(transports), "renewed", lambda _, settings: slow(settings))
        first = asyncio.create_task(held.reload(slow_start=1))
        await entered.wait()
        second = asyncio.create_task(held.reload(slow_start=2))
        await asyncio.sleep(0)
        begun = list(order)
        go.set()
        await asyncio.gather(first, second)

        assert (begun, order) == ([1], [1, 2])
        assert held.gate.balancer.settings.slow_start == 2


async def test_cancelled_reload_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that gives up leaves the old settings, and the next reload works."""
    async with holding() as held:
        transports = held.gate.balancer._running.transports
        with monkeypatch.context() as patch:
            entered = asyncio.Event()

            async def stuck(_: Any, settings: UpstreamSettings) -> TransportFactory:
                entered.set()
                never: asyncio.Future[TransportFactory] = asyncio.Future()
                return await never

            patch.setattr(type(transports), "renewed", stuck)
            task = asyncio.create_task(held.reload(slow_start=1))
            await entered.wait()
            task.cancel()
            await asyncio.wait([task])
        before = held.gate.balancer.settings.slow_start

        assert (before, task.cancelled()) == (0, True)
        assert await held.reload(slow_start=1) == ("slow_start",)


async def test_close_during_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that is closed meanwhile is not changed any more, and nothing is started."""
    running = compose(billing("http://127.0.0.1:1"))
    entered, go = asyncio.Event(), asyncio.Event()
    renewed = running.transports.renewed

    async def slow(_: Any, settings: UpstreamSettings) -> TransportFactory:
        entered.set()
        await go.wait()
        return await renewed(settings)

    monkeypatch.setattr(type(running.transports), "renewed", slow)
    task = asyncio.create_task(
        Balancer(running).reload(billing("http://127.0.0.1:2", health={"path": "/"}))
    )
    await entered.wait()
    await running.aclose()
    go.set()

    with pytest.raises(UpstreamClosed):
        await task
    assert [one.url for one in running.pool.destinations] == ["http://127.0.0.1:1"]
    assert not running.prober._tasks


async def test_transports_made_for_nothing_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport of a new destination is closed if another fault refuses the settings."""
    made: list[Any] = []
    make = TransportFactory.make

    def noted(factory: TransportFactory, address: Address) -> Transport:
        transport = make(factory, address)
        made.append(transport)
        return transport

    async with holding() as held:
        monkeypatch.setattr(TransportFactory, "make", noted)
        with pytest.raises(SettingsError):
            await held.gate.balancer.reload(billing("http://127.0.0.1:1", "asgi://no.such:app"))

        assert [one._dialler.closed for one in made] == [True]
