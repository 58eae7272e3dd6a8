"""The context variables that the watcher's tasks and timers have."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from fastapi_proxy_di.errors import Failure, ProxyError
from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.watcher import UNWATCHED_SECONDS, Watcher
from tests.forwarding.samples import NEVER, watched_exchange
from tests.support.gateways import until
from tests.support.stepped_loop import SteppedLoop
from tests.transport.loops import on_every_loop

REQUEST: ContextVar[str] = ContextVar("request", default="none")


class Client:
    """A client that stays, and remembers for whose request its messages were read."""

    def __init__(self) -> None:
        self.read_for: list[str] = []

    async def receive(self) -> Any:
        """Wait for ever."""
        self.read_for.append(REQUEST.get())
        await asyncio.Event().wait()


class Seeing(Watcher):
    """A watcher that remembers which request's context its timers have."""

    seen: list[str]

    def watch_client(self, exchange: Exchange) -> None:
        """Remember the context of the shared timer."""
        self.seen.append(REQUEST.get())
        super().watch_client(exchange)

    def _timed_out(self, exchange: Exchange, failure: Failure) -> ProxyError:
        self.seen.append(REQUEST.get())
        return super()._timed_out(exchange, failure)


def begun(name: str, client: Client, watcher: Watcher) -> Exchange:
    """Begin an exchange in the context of the request of this name."""

    def begin() -> Exchange:
        _ = REQUEST.set(name)
        return watched_exchange(client.receive, watcher=watcher)

    return copy_context().run(begin)


async def ended(exchange: Exchange) -> None:
    """End the watching, and await the rest."""
    rest = exchange.watcher.end(exchange)
    if rest is not None:
        await rest


@on_every_loop
async def test_client_is_read_in_the_context_of_its_own_request() -> None:
    """Not of the request that has started the timer they share."""
    watcher = Watcher("billing", NEVER)
    watcher.unwatched_seconds = 0.001
    clients = {name: Client() for name in ("first", "second")}
    exchanges = [begun(name, client, watcher) for name, client in clients.items()]
    await until(lambda: all(client.read_for for client in clients.values()))

    assert {name: client.read_for for name, client in clients.items()} == {
        "first": ["first"],
        "second": ["second"],
    }
    for exchange in exchanges:
        await ended(exchange)


@on_every_loop
async def test_timers_run_in_no_context_of_a_request() -> None:
    """Neither the shared timer nor that of a deadline: both may outlive the request."""
    watcher = Seeing("billing", Deadlines(None, None, 0.005))
    watcher.seen = []
    first, second = (begun(name, Client(), watcher) for name in ("first", "second"))
    await until(lambda: first.error is not None and second.error is not None)

    assert watcher.seen == ["none"] * 4
    await ended(first)
    await ended(second)


@pytest.mark.parametrize(("what", "expected"), [("dial", "none"), ("hedged", "first")])
@on_every_loop
async def test_dial_runs_in_no_context_of_a_request(what: str, expected: str) -> None:
    """The connection keeps the context of its dial; what else is awaited belongs to the request."""

    async def see() -> str:
        return REQUEST.get()

    _ = REQUEST.set("first")
    exchange = watched_exchange(Client().receive)

    assert await exchange.watcher.run(exchange, see(), what) == expected
    await ended(exchange)


@on_every_loop
async def test_shared_timer_that_is_set_again_has_no_context_of_a_request() -> None:
    """It is set again for exchanges that have begun later."""
    watcher = Seeing("billing", NEVER)
    watcher.seen = []
    loop = SteppedLoop()
    watcher._loop = loop  # type: ignore[assignment]
    first = begun("first", Client(), watcher)
    loop.advance(UNWATCHED_SECONDS / 2)
    second = begun("second", Client(), watcher)
    loop.advance(UNWATCHED_SECONDS)

    assert watcher.seen == ["none"] * 2
    await ended(first)
    await ended(second)
