"""Members of a balancer in plain ``def`` endpoints and in other threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from fastapi_proxy_di import (
    Balancer,
    Destination,
    Destinations,
    PickRequest,
    Upstream,
    UpstreamSettings,
    proxy_lifespan,
)
from fastapi_proxy_di.upstream import in_loop as in_loop_module
from fastapi_proxy_di.upstream.in_loop import in_loop
from fastapi_proxy_di.upstream.status import UpstreamStatus
from tests.support.gateways import billing
from tests.support.http_client import fetch
from tests.support.servers import run_app

pytestmark = pytest.mark.e2e

ONE, TWO = "http://127.0.0.1:9001", "http://127.0.0.1:9002"


class Billing(UpstreamSettings, name="billing"):
    """Two destinations that nothing is sent to."""

    destinations: Destinations = [ONE, TWO]
    policy: str = "round_robin"


def members() -> list[tuple[str, Callable[[Balancer], Any], Callable[[Balancer], Any]]]:
    """Give the name of each member, its call, and what shows that it has worked."""
    events: list[object] = []
    picked: list[Destination | None] = []
    return [
        ("status", Balancer.status, lambda b: b.status().upstream == "billing"),
        ("destinations", lambda b: b.destinations, lambda b: len(b.destinations) == 2),
        ("available", lambda b: b.available, lambda b: len(b.available) == 2),
        ("peek", Balancer.peek, lambda b: b.peek() is b.peek()),
        ("pick", lambda b: picked.append(b.pick()), lambda b: b.peek() not in picked),
        ("drain", lambda b: b.drain(ONE), lambda b: b.destinations[0].draining),
        (
            "drain with a timeout",
            lambda b: b.drain(ONE, timeout=5),
            lambda b: b.destinations[0].draining,
        ),
        ("undrain", lambda b: b.undrain(ONE), lambda b: not b.destinations[0].draining),
        ("readmit", lambda b: b.readmit(ONE), lambda b: len(b.available) == 2),
        (
            "replace_destinations",
            lambda b: b.replace_destinations([TWO]),
            lambda b: len(b.destinations) == 1,
        ),
        (
            "configure_destination",
            lambda b: b.configure_destination(ONE, weight=7),
            lambda b: b.destinations[0].weight == 7,
        ),
        (
            "configure_health",
            lambda b: b.configure_health(interval=77),
            lambda b: b.health.interval == 77,
        ),
        (
            "subscribe",
            lambda b: (b.subscribe(events.append)(), b.configure_health(interval=7)),
            lambda b: not events,
        ),
    ]


@pytest.mark.parametrize("member", members(), ids=lambda member: member[0])
async def test_member_works_in_a_plain_def_endpoint(
    member: tuple[str, Callable[[Balancer], Any], Callable[[Balancer], Any]],
) -> None:
    """FastAPI runs the endpoint in a thread, and the change has been made when it goes on."""
    _, call, worked = member
    app = FastAPI(lifespan=proxy_lifespan)

    @app.get("/")
    def endpoint(billing: Annotated[Balancer, Depends(Upstream(Billing))]) -> bool:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        call(billing)
        return bool(worked(billing))

    async with run_app(app) as server:
        reply = await fetch(server.address, target="/")

    assert (reply.status, reply.body) == (200, b"true")


class ThreadsOfPicks:
    """A policy that notes the thread of each pick."""

    name = "threads"

    def __init__(self) -> None:
        self.threads: list[int] = []

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None
    ) -> Destination | None:
        """Give the first."""
        self.threads.append(threading.get_ident())
        return available[0]


@pytest.mark.parametrize("call", [Balancer.peek, Balancer.pick])
async def test_policy_is_asked_in_the_loop(call: Callable[[Balancer], Any]) -> None:
    """A policy has no locks, so no other thread may call it, not even for a look."""
    policy = ThreadsOfPicks()
    async with Balancer.from_settings(billing(ONE, policy=policy)) as balancer:
        picked = await asyncio.to_thread(call, balancer)

    assert picked is not None
    assert set(policy.threads) == {threading.get_ident()}


async def test_probes_and_listeners_are_changed_in_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The prober's timers and the listeners belong to the loop."""
    threads: list[int] = []
    async with Balancer.from_settings(Billing()) as balancer:
        running = balancer._running
        reconfigure, subscribe = running.prober.reconfigure, running.events.subscribe

        def reconfigured(*arguments: Any) -> None:
            threads.append(threading.get_ident())
            reconfigure(*arguments)

        def subscribed(*arguments: Any) -> Callable[[], None]:
            threads.append(threading.get_ident())
            return subscribe(*arguments)

        monkeypatch.setattr(running.prober, "reconfigure", reconfigured)
        monkeypatch.setattr(type(running.events), "subscribe", staticmethod(subscribed))
        await asyncio.to_thread(balancer.configure_health, interval=77)
        unsubscribe = await asyncio.to_thread(balancer.subscribe, lambda event: None)
        monkeypatch.undo()
        unsubscribe()

    assert threads == [threading.get_ident()] * 2


async def test_fault_is_raised_in_the_thread_and_changes_nothing() -> None:
    """The error is that of the member itself."""
    async with Balancer.from_settings(Billing()) as billing:
        with pytest.raises(ValueError, match="has no destination"):
            _ = await asyncio.to_thread(billing.drain, "http://127.0.0.1:1")
        with pytest.raises(ValueError, match="at least one destination"):
            await asyncio.to_thread(billing.replace_destinations, [])

        assert [one.draining for one in billing.destinations] == [False, False]


async def test_threads_read_while_the_loop_changes_the_pool() -> None:
    """No reader meets half a change."""
    seen: list[UpstreamStatus] = []
    stop = threading.Event()
    failures: list[BaseException] = []

    def read(billing: Balancer) -> None:
        try:
            while not stop.is_set():
                seen.append(billing.status())
                assert billing.destinations
        except BaseException as failure:
            failures.append(failure)

    async with Balancer.from_settings(Billing()) as billing:
        readers = [threading.Thread(target=read, args=(billing,)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for round_ in range(200):
            billing.replace_destinations([ONE, f"http://127.0.0.1:{10000 + round_}"])
            await asyncio.sleep(0)
        stop.set()
        for reader in readers:
            await asyncio.to_thread(reader.join)

    assert failures == []
    assert {len(status.destinations) for status in seen} == {2}


async def test_upstream_that_has_ended_says_so() -> None:
    """The loop of the upstream has stopped, so nothing can be changed."""
    balancers: list[Balancer] = []

    async def run() -> None:
        async with Balancer.from_settings(Billing()) as billing:
            balancers.append(billing)

    await asyncio.to_thread(lambda: asyncio.run(run()))
    with pytest.raises(RuntimeError, match="does not run any more"):
        _ = balancers[0].drain(ONE)

    assert balancers[0].status().upstream == "billing"


async def test_thread_that_the_loop_waits_for_gets_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loop that is blocked until the thread ends is no deadlock, and calls nothing later."""
    monkeypatch.setattr(in_loop_module, "_BLOCKED_SECONDS", 0.01)
    called: list[str] = []
    with (
        ThreadPoolExecutor(1) as threads,
        pytest.raises(RuntimeError, match="is blocked, so the upstream was not changed"),
    ):
        threads.submit(in_loop, asyncio.get_running_loop(), lambda: called.append("late")).result()
    await asyncio.sleep(0)

    assert called == []


async def test_thread_waits_for_a_call_that_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that began is never reported as refused, however long it takes."""
    monkeypatch.setattr(in_loop_module, "_BLOCKED_SECONDS", 0.01)
    loop = asyncio.get_running_loop()
    begun, timed_out = threading.Event(), threading.Event()

    class Watched(Future[str]):
        def result(self, timeout: float | None = None) -> str:
            assert begun.wait(10)  # a busy machine may need longer than the timeout
            return super().result(timeout)

        def cancel(self) -> bool:
            timed_out.set()
            return super().cancel()

    monkeypatch.setattr(in_loop_module, "Future", Watched)

    def slow() -> str:
        begun.set()
        assert timed_out.wait(10)
        return "done"

    assert await asyncio.to_thread(in_loop, loop, slow) == "done"


async def test_call_in_the_loop_itself_is_direct() -> None:
    """No turn of the loop passes."""
    loop = asyncio.get_running_loop()
    calls: list[threading.Thread] = []

    in_loop(loop, lambda: calls.append(threading.current_thread()))
    assert calls == [threading.current_thread()]
    await asyncio.to_thread(in_loop, loop, lambda: calls.append(threading.current_thread()))
    assert calls == [threading.current_thread()] * 2
