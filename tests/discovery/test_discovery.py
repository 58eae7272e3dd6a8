"""Discovery in a running upstream: its start, its changes, and changes by code."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.discovery import discovery as subject
from fastapi_proxy_di.discovery.discovery import NothingFound
from fastapi_proxy_di.discovery.events import DiscoveryFailed
from fastapi_proxy_di.settings import DestinationSettings
from fastapi_proxy_di.supervision.events import Event
from fastapi_proxy_di.upstream.composition import compose
from tests.discovery.samples import at
from tests.discovery.scripted import ScriptedSources
from tests.support.gateways import billing, until
from tests.support.servers import dead_port

A, B, C = "http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3"


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> ScriptedSources:
    """Sources that find what the test says."""
    return ScriptedSources(monkeypatch)


@asynccontextmanager
async def running(*destinations: Any, **settings: Any) -> AsyncIterator[Balancer]:
    """Run an upstream whose destinations nobody dials."""
    async with Balancer.from_settings(billing(*destinations, **settings)) as balancer:
        yield balancer


def urls(balancer: Balancer) -> list[str]:
    """Give the addresses of the pool, in order."""
    return [one.url for one in balancer.destinations]


async def test_start_waits_for_all_sources(sources: ScriptedSources) -> None:
    """What they find stands in the order of the settings, with the fields of each source."""
    sources.find("one", B, C)
    sources.find("two", A)
    template = DestinationSettings(url="plug://one", weight=2)
    async with running("http://first", template, "plug://two") as balancer:
        found = [(one.url, one.weight) for one in balancer.destinations]

    assert found == [("http://first", 1), (B, 2), (C, 2), (A, 1)]


async def test_changes_reach_the_pool(sources: ScriptedSources) -> None:
    """Destinations that stay are the same objects; one that goes drains."""
    sources.find("one", A, B)
    async with running("plug://one") as balancer:
        a, b = balancer.destinations
        sources.find("one", B, C)
        await until(lambda: urls(balancer) == [B, C])

        assert balancer.destinations[0] is b
        assert a.removed


async def test_required_source_without_destinations_is_a_fault(
    sources: ScriptedSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded time; the text names each source and its reason."""
    monkeypatch.setattr(subject, "START_SECONDS", 0.05)
    sources.find("one", A)
    sources.fail("two", "SERVFAIL")
    with pytest.raises(NothingFound) as caught:
        await running("plug://one", "plug://two", "plug://silent").__aenter__()

    assert str(caught.value) == (
        "destinations: plug://two has no destination after 0.05 s (SERVFAIL), and plug://silent"
        " has no destination after 0.05 s (it has found nothing yet); set"
        " discovery.required=false to start without"
    )


async def test_required_source_may_fail_at_first(sources: ScriptedSources) -> None:
    """A name server may come up at the same time."""
    sources.fail("one", "SERVFAIL")
    upstream = compose(billing("plug://one"))
    events: list[str] = []

    def listen(event: Event) -> None:
        events.append(type(event).__name__)
        if isinstance(event, DiscoveryFailed):
            sources.find("one", A)

    _ = upstream.events.subscribe(listen)
    await upstream.start()
    found = [one.url for one in upstream.pool.destinations]
    await upstream.aclose()

    assert found == [A]
    assert events == ["DiscoveryFailed", "DestinationsFound", "DiscoveryRecovered"]


async def test_source_that_is_not_required_may_find_nothing(sources: ScriptedSources) -> None:
    """The upstream starts with what it has, and gets the rest later."""
    sources.fail("one", "SERVFAIL")
    async with running("plug://one", discovery={"required": False}) as balancer:
        assert balancer.pick() is None
        sources.find("one", A)
        await until(balancer.pick)

        assert urls(balancer) == [A]


async def test_address_of_two_sources_is_logged_once(
    sources: ScriptedSources, caplog: pytest.LogCaptureFixture
) -> None:
    """The first of the settings has it."""
    caplog.set_level(logging.INFO, "fastapi_proxy_di.discovery")
    sources.find("one", A, B)
    sources.find("two", B, C)
    async with running("plug://one", C, "plug://two") as balancer:
        sources.find("two", B, "http://10.0.0.4")
        await until(lambda: len(balancer.destinations) == 4)
    doubles = [one for one in caplog.messages if "as well" in one]

    text = "billing: plug://two finds addresses that {0} has as well; they get the settings of {0}"
    assert doubles == [text.format("plug://one"), text.format(C)]


async def test_replace_destinations_changes_sources(sources: ScriptedSources) -> None:
    """The old destinations stay until a new source has answered; its predecessor ends."""
    sources.find("one", A)
    async with running("plug://one") as balancer:
        balancer.replace_destinations(["plug://two", B])
        assert urls(balancer) == [A]
        sources.find("two", C)
        await until(lambda: urls(balancer) == [C, B])
        looks = sources.looks["one"]
        sources.find("one", A)
        balancer.replace_destinations([DestinationSettings(url="plug://two", weight=3)])

        assert [(one.url, one.weight) for one in balancer.destinations] == [(C, 3)]
    assert sources.looks["one"] == looks


async def test_new_source_that_is_silent_holds_up_a_change_for_a_bounded_time(
    sources: ScriptedSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the change is made without it."""
    monkeypatch.setattr(subject, "START_SECONDS", 0.05)
    async with running(A) as balancer:
        balancer.replace_destinations([B, "plug://silent"])
        assert urls(balancer) == [A]
        await until(lambda: urls(balancer) == [B])
        sources.find("silent", C)
        await until(lambda: urls(balancer) == [B, C])


async def test_new_source_that_fails_costs_no_destination_at_once(
    sources: ScriptedSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old destinations stay for a bounded time, in which the source may still find some."""
    monkeypatch.setattr(subject, "START_SECONDS", 5.0)
    sources.fail("one", "SERVFAIL")
    async with running(A) as balancer:
        failures: list[Event] = []
        balancer.subscribe(failures.append)
        balancer.replace_destinations(["plug://one"])
        await until(lambda: failures)
        assert urls(balancer) == [A]
        sources.find("one", B)
        await until(lambda: urls(balancer) == [B])


async def test_source_that_finds_nothing_holds_up_no_later_change(
    sources: ScriptedSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new source is waited for once, however many changes follow."""
    monkeypatch.setattr(subject, "START_SECONDS", 0.05)
    settings = {"discovery": {"required": False}}
    async with running(A, "plug://silent", "plug://fails", **settings) as balancer:
        monkeypatch.setattr(subject, "START_SECONDS", 60.0)
        sources.fail("fails", "SERVFAIL")
        balancer.configure_destination(A, weight=5)

        assert balancer.destinations[0].weight == 5
        balancer.replace_destinations([B, "plug://silent", "plug://fails"])
        assert urls(balancer) == [B]


async def test_reload_keeps_what_a_failing_source_found(
    sources: ScriptedSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other settings of discovery ask all sources anew, and other timeouts none."""
    sources.find("one", A)
    destinations = ("plug://one",)
    async with running(*destinations) as balancer:
        sources.fail("one", "SERVFAIL")
        await until(lambda: balancer.status().sources[0].reason)
        for changes in (
            {"timeouts": {"total": 60}},
            {"discovery": {"keep": 600}},
            {"timeouts": {"resolve": 1}},
        ):
            await balancer.reload(billing(*destinations, **changes))
            sources.looks["one"] = 0
            await until(lambda: sources.looks["one"])
            assert urls(balancer) == [A]


async def test_replacement_that_fails_changes_nothing(
    sources: ScriptedSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither sources nor what their template gives."""
    sources.find("one", A)
    async with running("plug://one") as balancer:
        heavier = DestinationSettings(url="plug://one", weight=3)
        with pytest.raises(ValueError, match="the plug-in is broken"):
            balancer.replace_destinations([heavier, "plug://broken"])
        with pytest.raises(ValueError, match="no_such_package"):
            balancer.replace_destinations([heavier, "asgi://no_such_package:app"])
        sources.find("one", A, B)
        await until(lambda: urls(balancer) == [A, B])

        assert [one.weight for one in balancer.destinations] == [1, 1]


async def test_change_of_a_found_destination_holds_while_it_is_found(
    sources: ScriptedSources,
) -> None:
    """An address that was away has the settings of its source again."""
    sources.find("one", A, B)
    async with running("plug://one", C) as balancer:
        balancer.configure_destination(A, weight=5)
        balancer.configure_destination(A, tier=1)
        balancer.configure_destination(C, weight=7)
        with pytest.raises(ValueError, match="weight"):
            balancer.configure_destination(A, weight=0)
        sources.find("one", A)
        await until(lambda: len(balancer.destinations) == 2)
        kept = [(one.weight, one.tier) for one in balancer.destinations]
        sources.find("one", B)
        await until(lambda: urls(balancer) == [B, C])
        sources.find("one", A)
        await until(lambda: urls(balancer) == [A, C])

        assert kept == [(5, 1), (7, 0)]
        assert balancer.destinations[0].weight == 1


async def test_failed_dial_looks_up_again(sources: ScriptedSources) -> None:
    """Of the source that found the address, and of no other."""
    dead = f"http://127.0.0.1:{dead_port()}"
    sources.find("one", dead)
    sources.find("two", A)
    async with running("plug://one", "plug://two", retries={"attempts": 0}) as balancer:
        client = balancer.client
        _ = balancer.drain(A)
        with pytest.raises(Exception, match="cannot connect"):
            await client.get("/x")
        await until(lambda: sources.looks["one"] == 2)

    assert sources.looks["two"] == 1


async def test_ejection_stays_with_an_address_that_flaps(sources: ScriptedSources) -> None:
    """Left out of one list and given in the next one."""
    sources.find("one", A, B)
    async with running("plug://one") as balancer:
        first = balancer.destinations[0]
        async with balancer.lease():
            pass
        upstream = balancer._running
        for _ in range(5):
            upstream.supervisor.failed(first, "connect")
        assert first.ejected
        sources.find("one", B)
        await until(lambda: urls(balancer) == [B])
        sources.find("one", A, B)
        await until(lambda: urls(balancer) == [A, B])
        again = balancer.destinations[0]

        assert again is not first
        assert (again.ejected_until, again.ejections) == (first.ejected_until, 1)
        balancer.readmit(A)
        assert again.available


async def test_other_host_is_another_destination(sources: ScriptedSources) -> None:
    """Its connections were opened with the name of the old one."""
    sources.find("one", at(A, host="a.internal"))
    async with running("plug://one") as balancer:
        (before,) = balancer.destinations
        sources.find("one", at(A, host="b.internal"))
        await until(lambda: balancer.destinations[0] is not before)

        assert balancer.destinations[0].address.authority == b"b.internal"


async def test_status_shows_each_source(sources: ScriptedSources) -> None:
    """What serves, since when, and why a source fails."""
    sources.find("one", A, B)
    async with running("plug://one?token=s3cret", C) as balancer:
        (good,) = balancer.status().sources
        sources.fail("one", "SERVFAIL")
        await until(lambda: balancer.status().sources[0].reason)
        (bad,) = balancer.status().sources

    assert (good.source, good.found, good.reason, good.last_failure) == ("plug://one", 2, "", None)
    assert good.last_success is not None
    assert good.since is not None
    assert (bad.found, bad.reason, bad.last_success) == (2, "SERVFAIL", good.last_success)
    assert bad.last_failure is not None


async def test_drained_address_that_a_source_finds_again_is_still_drained(
    sources: ScriptedSources,
) -> None:
    """One that the operator has not drained, or has undrained, comes back without a drain."""
    sources.find("one", A, B, C)
    async with running("plug://one") as balancer:
        await balancer.drain(A)
        await balancer.drain(B)
        for _ in range(2):
            sources.find("one", C)
            await until(lambda: urls(balancer) == [C])
            sources.find("one", A, B)
            await until(lambda: urls(balancer) == [A, B])
            assert [one.draining for one in balancer.destinations] == [True, True]
        assert [one.state for one in balancer.status().destinations] == ["draining"] * 2
        balancer.undrain(B)
        sources.find("one", C)
        await until(lambda: urls(balancer) == [C])
        sources.find("one", A, B, C)
        await until(lambda: urls(balancer) == [A, B, C])

        assert [one.draining for one in balancer.destinations] == [True, False, False]


async def test_drained_address_that_code_adds_again_takes_requests() -> None:
    """`replace_destinations` names it anew; one that it does not take away stays drained."""
    async with running(A, B) as balancer:
        await balancer.drain(A)
        balancer.replace_destinations([A, B, C])
        stays = [one.draining for one in balancer.destinations]
        balancer.replace_destinations([B])
        balancer.replace_destinations([A, B])
        comes_back = [one.draining for one in balancer.destinations]

    assert stays == [True, False, False]
    assert comes_back == [False, False]


async def test_drained_address_stays_drained_with_another_host() -> None:
    """It is another destination for connections, and the same one for the operator."""
    async with running(A, B) as balancer:
        await balancer.drain(A)
        balancer.replace_destinations([at(A, host="a.example"), B])

        assert [one.draining for one in balancer.destinations] == [True, False]


async def test_result_of_a_source_that_was_removed_is_ignored(sources: ScriptedSources) -> None:
    """Its task has not ended yet."""
    sources.find("one", A)
    async with running("plug://one") as balancer:
        discovery = balancer._running.discovery
        (searcher,) = discovery.searchers
        balancer.replace_destinations([B])
        discovery._changed(searcher)

        assert urls(balancer) == [B]


async def test_replacement_that_waits_for_a_source_and_fails_is_logged(
    sources: ScriptedSources, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for its exception any more."""
    monkeypatch.setattr(subject, "START_SECONDS", 0.02)
    async with running(A) as balancer:
        balancer.replace_destinations(["plug://silent", "asgi://no_such_package:app"])
        await until(lambda: "the destinations of plug://silent cannot be used: " in caplog.text)

        assert urls(balancer) == [A]
