"""The search of one source, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any

import pytest

from fastapi_proxy_di.discovery.events import (
    DestinationsFound,
    DiscoveryFailed,
    DiscoveryRecovered,
)
from fastapi_proxy_di.discovery.protocol import DiscoveryError, Search
from fastapi_proxy_di.discovery.searcher import Searcher
from fastapi_proxy_di.settings import DestinationSettings, DiscoverySettings
from fastapi_proxy_di.supervision.events import Event, Events
from tests.discovery.samples import at, some
from tests.support.virtual_time import run_virtually

Lists = AsyncIterator[Sequence[DestinationSettings]]
API = "plug://api"
NO_GENERATOR = "it is not an async generator; a source gives lists by yield"


class Run:
    """A search that has run for a time.

    Attributes:
        events: What it emitted.
        calls: The seconds at which the source was called.
        lists: The URLs that were published, each time they changed.
    """

    def __init__(
        self,
        source: Callable[[Search], Any],
        seconds: float,
        monkeypatch: pytest.MonkeyPatch,
        changed: Callable[[Searcher], None] = lambda _: None,
        **fields: Any,
    ) -> None:
        monkeypatch.setattr(
            "fastapi_proxy_di.settings.source_schemes.BUILT_IN", ("dns", "srv", "file", "plug")
        )
        self.events: list[Event] = []
        self.calls: list[int] = []
        self.lists: list[list[str]] = []
        self._source, self._changed = source, changed
        run_virtually(self._run(seconds, DiscoverySettings(**fields)))

    async def _run(self, seconds: float, settings: DiscoverySettings) -> None:
        loop = asyncio.get_running_loop()
        began, events = loop.time(), Events()
        _ = events.subscribe(self.events.append)

        def source(search: Search) -> Any:
            self.calls.append(round(loop.time() - began))
            return self._source(search)

        def changed(searcher: Searcher) -> None:
            urls = [one.url for one in searcher.destinations]
            if not self.lists or self.lists[-1] != urls:
                self.lists.append(urls)
            self._changed(searcher)

        search = Search(at(API), settings, 5.0, Random(1))
        self.searcher = Searcher(
            "billing", search, source, random=Random(1), events=events, changed=changed
        )
        task = asyncio.create_task(self.searcher.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


def test_source_that_ends_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After half a minute; an equal list is no change."""

    async def once(search: Search) -> Lists:
        yield some(1)

    run = Run(once, 70, monkeypatch)

    assert len(run.calls) == 3
    assert run.events == [
        DestinationsFound("billing", source=API, added=("http://10.0.0.1",), found=1)
    ]
    assert run.searcher.succeeded_at is not None
    assert run.searcher.failed_at is None


def test_changes_are_emitted_with_what_came_and_went(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of a weight alone has neither."""
    heavier = (at("http://10.0.0.2", weight=2),)

    async def changing(search: Search) -> Lists:
        for found in (some(1), some(2), heavier):
            yield found
            await search.pause()

    run = Run(changing, 105, monkeypatch)

    assert run.events[1:] == [
        DestinationsFound(
            "billing",
            source=API,
            added=("http://10.0.0.2",),
            removed=("http://10.0.0.1",),
            found=1,
        ),
        DestinationsFound("billing", source=API, found=1),
    ]


def test_outage_is_one_failure_and_one_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again after 1, 2, 4 and 8 seconds; the last list stays."""
    calls = []

    async def failing(search: Search) -> Lists:
        calls.append(1)
        if 1 < len(calls) < 5:
            raise DiscoveryError("SERVFAIL")
        yield some(1)

    run = Run(failing, 50, monkeypatch)

    assert [type(one) for one in run.events] == [
        DestinationsFound,
        DiscoveryFailed,
        DiscoveryRecovered,
    ]
    assert run.events[1] == DiscoveryFailed("billing", source=API, reason="SERVFAIL", kept=1)
    assert run.lists == [["http://10.0.0.1"]]
    first = run.calls[1]
    assert [round(at - first) for at in run.calls[1:5]] == pytest.approx([0, 1, 3, 7], abs=1)


def test_list_ceases_to_hold_while_the_source_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``keep``, also between two calls of the source."""
    began: list[int] = []

    async def dies(search: Search) -> Lists:
        if began:
            raise DiscoveryError("gone", retry_after=1000)
        began.append(1)
        yield some(1)

    run = Run(dies, 100, monkeypatch, keep=40)

    assert run.lists == [["http://10.0.0.1"], []]
    assert run.events[-1] == DestinationsFound(
        "billing", source=API, removed=("http://10.0.0.1",), found=0
    )
    assert len(run.calls) == 2
    assert run.searcher.failed_at is not None


def test_empty_list_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the source recovers by a list that is not empty."""

    async def comes_late(search: Search) -> Lists:
        for found in ((), (), some(1)):
            yield found
            await search.pause(1)

    run = Run(comes_late, 4, monkeypatch)

    assert [type(one) for one in run.events] == [
        DiscoveryFailed,
        DestinationsFound,
        DiscoveryRecovered,
    ]


async def _gives_texts(search: Search) -> AsyncIterator[Any]:
    yield ["http://a"]


async def _gives_a_source(search: Search) -> Lists:
    yield [at("dns+http://a")]


async def _gives_an_app(search: Search) -> Lists:
    yield [at("asgi://package:app")]


def _raises(search: Search) -> Lists:
    raise RuntimeError("token=s3cret")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            lambda search: asyncio.sleep(0),
            "it is not an async generator; a source gives lists by yield",
        ),
        (lambda search: 5, "it is not an async generator; a source gives lists by yield"),
        (_gives_texts, "it gave str, not DestinationSettings"),
        (_gives_a_source, "it gave dns+http://a, which only settings may have"),
        (_gives_an_app, "it gave asgi://package:app, which only settings may have"),
        (_raises, "RuntimeError"),
    ],
)
def test_wrong_source_is_a_failure(
    source: Callable[[Search], Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason; the text of an exception may hold a secret, and is not shown."""
    run = Run(source, 0.5, monkeypatch)

    assert run.events == [DiscoveryFailed("billing", source=API, reason=reason)]


def test_iterator_need_not_be_a_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object with ``__anext__`` is enough."""

    class Objects:
        def __aiter__(self) -> Objects:
            return self

        async def __anext__(self) -> Sequence[DestinationSettings]:
            await asyncio.sleep(1)
            if given:
                raise StopAsyncIteration
            given.append(1)
            return some(1)

    given: list[int] = []
    run = Run(lambda search: Objects(), 40, monkeypatch)

    assert run.lists == [["http://10.0.0.1"]]
    assert len(run.calls) == 2


def test_destinations_that_cannot_be_used_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The search goes on."""

    async def once(search: Search) -> Lists:
        yield some(1)

    def refuse(searcher: Searcher) -> None:
        raise ValueError("http_version: 2 needs the extra http2")

    run = Run(once, 70, monkeypatch, refuse)

    assert len(run.calls) == 3
    assert f"the destinations of {API} cannot be used: http_version: 2" in caplog.text


def test_template_applies_to_each_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another template replaces the fields of the first one."""

    async def once(search: Search) -> Lists:
        yield some(1)

    run = Run(once, 1, monkeypatch)
    run.searcher.set_template(at(API, weight=3))

    assert [one.weight for one in run.searcher.destinations] == [3]


def test_cancellation_inside_a_source_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is asked again; only the end of the upstream ends the search."""

    async def cancelled(search: Search) -> Lists:
        yield some(1)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    run = Run(cancelled, 10, monkeypatch)

    assert len(run.calls) > 2
    failed = [one for one in run.events if isinstance(one, DiscoveryFailed)]
    assert failed[0].reason == "CancelledError"
    assert run.lists == [["http://10.0.0.1"]]


def test_list_may_be_an_iterator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that gives a generator gives its destinations."""

    async def generated(search: Search) -> AsyncIterator[Any]:
        yield (one for one in some(1, 2))

    assert Run(generated, 10, monkeypatch).lists == [["http://10.0.0.1", "http://10.0.0.2"]]


def test_first_of_two_with_one_address_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the settings; each address counts once."""
    first, second = at("http://10.0.0.1", tier=0, weight=5), at("http://10.0.0.1", tier=1)

    async def twice(search: Search) -> Lists:
        yield (first, second)

    run = Run(twice, 10, monkeypatch)

    assert run.searcher.destinations == (first,)
    assert run.events == [
        DestinationsFound("billing", source=API, added=("http://10.0.0.1",), found=1)
    ]
