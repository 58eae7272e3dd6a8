"""What others have not signed is ignored, and what is newer stays."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fastapi_proxy_di.cluster.signing import MAX_BYTES, Signer
from fastapi_proxy_di.cluster.store import Script, Store
from tests.cluster.sharing import KEY, STATE, until
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def forged(server: RedisServer, subject: str, **what: Any) -> bytes:
    """Write a record into the store that no process of the app has written; give its value."""
    field, version = f"drain:{subject}", what.get("version", 8 * 10**15)
    signer = Signer(what.get("key", KEY).encode(), what.get("name", "shop"))
    record = signer.sign(("billing", what.get("field", field), str(version)), {"n": 666})
    if "text" in what:
        record = what["text"]
    value = b"%d|%s" % (version, record)
    server.client.hset(STATE, field, value)
    fields = {"upstream": "billing", "field": field, "version": version, "record": record}
    server.client.xadd("{shop}:stream", fields)  # type: ignore[arg-type]
    return value


@pytest.mark.parametrize(
    "what",
    [
        pytest.param({"key": "another-key-of-another-app"}, id="another key"),
        pytest.param({"name": "bakery"}, id="another app"),
        pytest.param({"field": "drain:http://b:80"}, id="moved"),
        pytest.param({"text": b"no record"}, id="unsigned"),
        pytest.param({"text": b"x" * (MAX_BYTES + 1)}, id="too long"),
    ],
)
async def test_record_that_is_not_signed_is_ignored_and_replaced(
    start: Any, server: RedisServer, caplog: pytest.LogCaptureFixture, what: dict[str, Any]
) -> None:
    """It is counted, one WARNING is logged, and the next whole read brings the true one back."""
    one, two = [await start() for _ in range(2)]
    await one.write("http://a:80", 1)
    await until(lambda: two.seen == one.seen)

    value = forged(server, "http://a:80", **what)
    forged(server, "http://c:80", **what)
    await until(lambda: two.cluster.state.ignored >= 2)
    await two.cluster.read()

    assert two.seen == {"http://a:80": 1}
    assert server.client.hget(STATE, "drain:http://a:80") != value
    assert (await start()).seen == {"http://a:80": 1}
    warnings = [one for one in caplog.records if "not signed" in one.message]
    assert len(warnings) <= 3, "at most one for each process"


async def test_newer_format_is_ignored_and_stays(
    start: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is not yet updated goes on, and does not undo what updated ones write."""
    one = await start()
    monkeypatch.setattr("fastapi_proxy_di.cluster.signing.FORMAT", 2)
    value = forged(server, "http://a:80", version=int(time.time() * 1000))
    monkeypatch.undo()

    await until(lambda: one.cluster.state.ignored >= 1)
    await one.cluster.read()

    assert one.seen == {}
    assert server.client.hget(STATE, "drain:http://a:80") == value


async def test_later_change_of_a_process_wins_also_if_it_is_written_first(
    start: Any, server: RedisServer
) -> None:
    """Each write has a connection, so the earlier one may come second."""
    one, two = [await start() for _ in range(2)]
    state = one.cluster.state
    earlier = state.write("billing", "drain", "http://a:80", {"n": 1})
    later = state.write("billing", "drain", "http://a:80", {"n": 2})

    assert await later is not None
    assert await earlier == "0-0"
    await until(lambda: two.seen == {"http://a:80": 2})
    assert state.held("billing", "drain")["http://a:80"] == {"n": 2}
    assert (await start()).seen == {"http://a:80": 2}


async def test_many_records_are_read_and_offered_in_pieces(
    start: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command holds up the store or the event loop for long, also after a flush."""
    sizes: list[int] = []
    run = Store.run

    async def measured(self: Store, script: Script, *given: Any, **options: Any) -> Any:
        result = await run(self, script, *given, **options)
        last = result[-1] if isinstance(result, list) else None
        sizes.append(max(len(given), len(last) if isinstance(last, list) else 0))
        return result

    monkeypatch.setattr(Store, "run", measured)
    one = await start()
    state = one.cluster.state
    for n in range(3000):
        one.seen[f"http://{n}:80"] = n
        state.write("billing", "drain", f"http://{n}:80", {"n": n}).close()  # only held
    for _ in range(2):
        await one.cluster.read()
        assert server.client.hlen(STATE) == 3000
        late = await start()
        assert late.seen == one.seen
        server.client.flushall()
    assert 400 <= max(sizes) < 1000


async def test_ejections_that_have_ended_are_removed(start: Any, server: RedisServer) -> None:
    """From the memory of each process and from the store; drains and running ones stay."""
    one, two = [await start() for _ in range(2)]
    state = one.cluster.state
    now = state.now()
    for n, until_ms in enumerate((now - 400_000, now - 1000, now + 60_000)):
        await state.write("billing", "ejection", f"http://{n}:80", {"until": until_ms})
    await one.write("http://a:80", 1)
    await until(lambda: two.seen == one.seen)

    for process in (one, two):
        await process.cluster.read()

    left = {b"ejection:http://1:80", b"ejection:http://2:80", b"drain:http://a:80"}
    assert set(server.client.hgetall(STATE)) == left
    for process in (one, two):
        held = process.cluster.state.held("billing", "ejection")
        assert set(held) == {"http://1:80", "http://2:80"}
