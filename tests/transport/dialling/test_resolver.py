"""Look-ups: shared, bounded, and harmless to each other and to the process while they hang."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading

import pytest

from fastapi_proxy_di.transport.dialling import resolver as resolver_module
from fastapi_proxy_di.transport.dialling.resolver import (
    MAX_ABANDONED,
    MAX_NAMES,
    MAX_RUNNING,
    Resolver,
    numeric_addresses,
    resolver_of,
)
from tests.support.gateways import until
from tests.support.name_servers import Names
from tests.transport.loops import on_every_loop


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def hosts(resolver: Resolver, name: str, timeout: float = 30.0) -> list[str]:
    """Give the addresses of a name."""
    return [info[4][0] for info in await resolver.resolve(name, 80, timeout)]


@on_every_loop
async def test_dials_share_one_look_up_and_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred at once are one look-up, and the next five seconds need none."""
    names, clock = Names(monkeypatch), Clock()
    names.resolve("billing.test", "127.0.0.1", "::1")
    resolver = Resolver(clock)

    found = await asyncio.gather(*(hosts(resolver, "billing.test") for _ in range(100)))
    clock.now += 4.9
    again = await hosts(resolver, "billing.test")

    assert found == [["127.0.0.1", "::1"]] * 100
    assert again == ["127.0.0.1", "::1"]
    assert names.looked_up["billing.test"] == 1
    assert resolver.running == resolver.abandoned == 0

    clock.now += 0.1
    await hosts(resolver, "billing.test")
    assert names.looked_up["billing.test"] == 2


@on_every_loop
async def test_hanging_name_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty dials to a name whose name server is silent take one thread."""
    names = Names(monkeypatch)
    names.hang("dead.test")
    names.resolve("alive.test", "127.0.0.1")
    resolver = Resolver()
    dead = [asyncio.create_task(hosts(resolver, "dead.test")) for _ in range(50)]
    await until(lambda: names.looked_up["dead.test"] == 1)

    assert await hosts(resolver, "alive.test") == ["127.0.0.1"]
    assert resolver.running == 1

    names.release()
    failures = await asyncio.gather(*dead, return_exceptions=True)
    assert {type(failure) for failure in failures} == {socket.gaierror}
    assert len({id(failure) for failure in failures}) == 50


@on_every_loop
async def test_hanging_look_ups_leave_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight names hang; the ninth waits until the first of them no longer counts."""
    names = Names(monkeypatch)
    dead = [f"dead{number}.test" for number in range(MAX_RUNNING)]
    names.hang(*dead)
    names.resolve("alive.test", "127.0.0.1")
    resolver = Resolver()
    waiting = [asyncio.create_task(hosts(resolver, name, 0.05)) for name in dead]
    await until(lambda: names.looked_up.total() == MAX_RUNNING)

    assert await hosts(resolver, "alive.test") == ["127.0.0.1"]
    await until(lambda: resolver.abandoned == MAX_RUNNING)
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(failure) for failure in failures} == {TimeoutError}

    names.release()
    await until(lambda: resolver.abandoned == 0)
    assert resolver.running == 0


@on_every_loop
async def test_many_names_that_hang_delay_another_for_seconds_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten names of one upstream hang for half a minute; another name does not wait for that."""
    names = Names(monkeypatch)
    dead = [f"dead{number}.test" for number in range(MAX_RUNNING + 2)]
    names.hang(*dead)
    names.resolve("alive.test", "127.0.0.1")
    resolver = Resolver()
    waiting = [asyncio.create_task(hosts(resolver, name)) for name in dead]
    await until(lambda: names.looked_up.total() == MAX_RUNNING)

    assert await hosts(resolver, "alive.test", 10.0) == ["127.0.0.1"]
    assert not any(task.done() for task in waiting)

    names.release()
    await asyncio.gather(*waiting, return_exceptions=True)


@on_every_loop
async def test_hanging_name_has_one_thread_for_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A later dial waits for the look-up that runs; after 30 seconds it starts another."""
    names, clock = Names(monkeypatch), Clock()
    names.hang("dead.test")
    resolver = Resolver(clock)
    for seconds in (0.0, 10.0, 20.1, 20.1):
        clock.now += seconds
        with pytest.raises(TimeoutError):
            await hosts(resolver, "dead.test", 0.01)

    assert names.looked_up["dead.test"] == 2
    names.release()  # both fail
    await until(lambda: resolver.abandoned == 0)
    names.resolve("dead.test", "127.0.0.2")
    clock.now += 1.0
    assert await hosts(resolver, "dead.test") == ["127.0.0.2"]


@on_every_loop
async def test_too_many_hanging_threads_refuse_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 threads are all that hang; a further look-up says so, a known name is served."""
    names, clock = Names(monkeypatch), Clock()
    names.resolve("known.test", "127.0.0.1")
    resolver = Resolver(clock)
    await hosts(resolver, "known.test")
    clock.now += 6.0
    dead = [f"dead{number}.test" for number in range(MAX_ABANDONED)]
    names.hang(*dead)
    waiting = [asyncio.create_task(hosts(resolver, name, 0.001)) for name in dead]
    await until(lambda: resolver.abandoned == MAX_ABANDONED)

    with pytest.raises(OSError, match="64 look-ups hang"):
        await hosts(resolver, "other.test")
    assert await hosts(resolver, "known.test") == ["127.0.0.1"]
    threads = {thread.name for thread in threading.enumerate()}
    assert {f"resolve {name}" for name in dead} <= threads
    assert "resolve other.test" not in threads

    names.release()
    await asyncio.gather(*waiting, return_exceptions=True)
    await until(lambda: resolver.abandoned == 0)


@on_every_loop
async def test_stale_addresses_serve_while_look_ups_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary failure, for a minute after the last success."""
    names, clock = Names(monkeypatch), Clock()
    names.resolve("billing.test", "127.0.0.1")
    resolver = Resolver(clock)
    await hosts(resolver, "billing.test")
    names.fail("billing.test", socket.EAI_AGAIN)

    clock.now += 30.0
    assert await hosts(resolver, "billing.test") == ["127.0.0.1"]
    assert await hosts(resolver, "billing.test") == ["127.0.0.1"]
    assert names.looked_up["billing.test"] == 2  # the failure serves for a second

    clock.now += 30.0
    with pytest.raises(socket.gaierror):
        await hosts(resolver, "billing.test")


@on_every_loop
async def test_stale_addresses_serve_while_a_look_up_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first dial waits half a second for news, the next ones not at all."""
    names, clock = Names(monkeypatch), Clock()
    names.resolve("billing.test", "127.0.0.1")
    resolver = Resolver(clock)
    await hosts(resolver, "billing.test")
    names.hang("billing.test")
    clock.now += 6.0
    loop = asyncio.get_running_loop()

    began = loop.time()
    assert await hosts(resolver, "billing.test") == ["127.0.0.1"]
    first = loop.time() - began
    assert 0.4 < first < 20
    clock.now += 0.5
    assert await hosts(resolver, "billing.test") == ["127.0.0.1"]

    assert names.looked_up["billing.test"] == 2
    names.release()
    await until(lambda: resolver.running == 0)


@on_every_loop
async def test_name_that_is_gone_is_never_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name server says that there is no such name."""
    names, clock = Names(monkeypatch), Clock()
    names.resolve("billing.test", "127.0.0.1")
    resolver = Resolver(clock)
    await hosts(resolver, "billing.test")
    names.fail("billing.test", socket.EAI_NONAME)
    clock.now += 6.0

    with pytest.raises(socket.gaierror):
        await hosts(resolver, "billing.test")


@on_every_loop
async def test_cancelled_dial_leaves_the_shared_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other dials to the name get its result."""
    names = Names(monkeypatch)
    names.resolve("billing.test", "127.0.0.1")
    names.hang("billing.test")
    resolver = Resolver()
    cancelled, other = (asyncio.create_task(hosts(resolver, "billing.test")) for _ in range(2))
    await until(lambda: names.looked_up["billing.test"] == 1)
    cancelled.cancel()
    names.release()

    assert await other == ["127.0.0.1"]
    assert cancelled.cancelled()


async def test_thread_that_cannot_start_is_our_own_shortage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process has no thread left; the next look-up has one again."""
    names, clock = Names(monkeypatch), Clock()
    names.resolve("billing.test", "127.0.0.1")
    resolver = Resolver(clock)
    with monkeypatch.context() as patch:

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError, match="can't start new thread"):
            await hosts(resolver, "billing.test")

    clock.now += 1.0
    assert await hosts(resolver, "billing.test") == ["127.0.0.1"]


async def test_label_that_is_too_long_is_no_name() -> None:
    """Python refuses to encode the name before anything is asked."""
    with pytest.raises(socket.gaierror, match="not a valid name"):
        await hosts(Resolver(), "x" * 64 + ".test")


async def test_number_of_known_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that was looked up first is looked up again."""
    monkeypatch.setattr(resolver_module, "MAX_NAMES", 2)
    assert MAX_NAMES == 1024
    names = Names(monkeypatch)
    resolver = Resolver()
    for name in ("a.test", "b.test", "c.test", "c.test", "a.test"):
        names.resolve(name, "127.0.0.1")
        await hosts(resolver, name)

    assert names.looked_up == {"a.test": 2, "b.test": 1, "c.test": 1}


async def test_forgotten_name_gives_its_result_to_those_who_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name is forgotten while it is looked up."""
    monkeypatch.setattr(resolver_module, "MAX_NAMES", 1)
    names = Names(monkeypatch)
    names.resolve("a.test", "127.0.0.1")
    names.resolve("b.test", "127.0.0.2")
    names.hang("a.test")
    resolver = Resolver()
    first = asyncio.create_task(hosts(resolver, "a.test"))
    await until(lambda: names.looked_up["a.test"] == 1)

    assert await hosts(resolver, "b.test") == ["127.0.0.2"]
    names.release()
    assert await first == ["127.0.0.1"]


def test_loop_may_close_before_a_look_up_ends(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """The thread drops its result, without a traceback."""
    names = Names(monkeypatch)
    names.hang("dead.test")

    async def dial() -> None:
        with pytest.raises(TimeoutError):
            await hosts(resolver_of(asyncio.get_running_loop()), "dead.test", 0.01)

    asyncio.run(dial())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "resolve dead.test"]
    assert thread.daemon
    names.release()
    thread.join()

    assert not recwarn.list


@on_every_loop
async def test_upstreams_of_a_loop_share_one_resolver() -> None:
    """Another loop has another one."""
    loop = asyncio.get_running_loop()

    assert resolver_of(loop) is resolver_of(loop)


def test_resolver_goes_with_its_loop() -> None:
    """Nothing keeps a closed loop alive."""
    loop = asyncio.new_event_loop()
    resolver_of(loop)
    before = len(resolver_module._resolvers)
    loop.close()
    del loop
    gc.collect()

    assert len(resolver_module._resolvers) < before


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", [("127.0.0.1", 80)]),
        ("::1", [("::1", 80, 0, 0)]),
        ("billing.test", []),
        ("x" * 64, []),
    ],
)
def test_literal_addresses_need_no_look_up(host: str, expected: list[object]) -> None:
    """A name gives nothing."""
    assert [info[4] for info in numeric_addresses(host, 80)] == expected
