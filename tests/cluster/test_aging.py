"""What is removed from the store when it is old, and what is kept."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fastapi_proxy_di.cluster.aging import has_ended, is_old
from tests.cluster.sharing import STATE, until
from tests.support.redis_servers import RedisServer

DAY = 86400000
NOW = 20000 * DAY


@pytest.mark.parametrize(
    ("field", "body", "age", "ended", "old"),
    [
        ("drain:http://a", {"on": True}, 14 * DAY, False, False),
        ("drain:http://a", {"on": True}, 16 * DAY, False, True),
        ("drain:http://a", {"on": True}, 31 * DAY, True, True),
        ("drain:http://a", {"on": False}, DAY / 2, False, False),
        ("drain:http://a", {"on": False}, 2 * DAY, True, False),
        ("weight:http://a", {"weight": 2}, 16 * DAY, False, True),
        ("weight:http://a", {"weight": 2}, 31 * DAY, True, True),
        ("health:0", {"at": 0}, 31 * DAY, False, False),
        ("ejection:http://a", {"until": NOW - 200000}, DAY, False, False),
        ("ejection:http://a", {"until": NOW - 400000}, 0, True, False),
    ],
)
def test_record_is_kept_for_its_time(
    field: str, body: dict[str, Any], age: float, ended: bool, old: bool
) -> None:
    """A month, a day for the end of a drain, five minutes after the end of an ejection."""
    version = int(NOW - age)

    assert has_ended(field, version, body, NOW) is ended
    assert is_old(field, version, body, NOW) is old


@pytest.mark.e2e
@pytest.mark.slow
async def test_changes_of_addresses_that_nobody_has_are_forgotten(
    start: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of addresses that a process has are written anew, and an undrained one is forgotten."""
    one, two = [await start() for _ in range(2)]
    state = one.cluster.state
    state.add("billing", lambda url: url == "http://a:80")
    written = round(time.time() * 1000)
    for n, (url, on) in enumerate((("a", True), ("b", True), ("c", False))):
        one.seen[f"http://{url}:80"] = n
        await state.write("billing", "drain", f"http://{url}:80", {"on": on, "n": n})
    await until(lambda: two.seen == one.seen)
    monkeypatch.setattr("fastapi_proxy_di.cluster.aging.KEPT_MS", 1600)
    monkeypatch.setattr("fastapi_proxy_di.cluster.aging.UNDRAINED_MS", 900)

    await until(lambda: state.now() - written > 1100)
    await one.cluster.read()
    kept = {b"drain:http://a:80", b"drain:http://b:80"}
    assert set(server.client.hkeys(STATE)) == kept
    await until(lambda: state.now() - written > 1900)
    await two.cluster.read()
    assert set(server.client.hkeys(STATE)) == {b"drain:http://a:80"}
    assert set(two.cluster.state.held("billing", "drain")) == {"http://a:80"}


@pytest.mark.e2e
async def test_change_of_a_machine_with_a_slow_clock_is_kept(
    start: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version is by the store's time, as its age is."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    one = await start()

    await one.write("http://a:80", 1)
    await one.cluster.read()

    assert server.client.hkeys(STATE) == [b"drain:http://a:80"]
    assert set(one.cluster.state.held("billing", "drain")) == {"http://a:80"}
