"""Sentry's SDK sees a proxied mount as an ordinary router."""

from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from fastapi import FastAPI

from tests.monitoring.apps import asked_of_both

pytestmark = pytest.mark.e2e


class _Kept:
    """A transport that keeps the kind and name of each item instead of sending it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def keep(self, event: dict[str, Any], hint: object) -> None:
        self.events.append((event.get("type", "error"), event["transaction"]))

    def take(self) -> list[tuple[str, str]]:
        events, self.events = self.events, []
        return events


@pytest.fixture
def kept() -> Iterator[_Kept]:
    """Run Sentry with a transport that sends nothing."""
    kept = _Kept()
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        traces_sample_rate=1.0,
        before_send=kept.keep,
        before_send_transaction=kept.keep,
    )
    yield kept
    sentry_sdk.init()


@pytest.mark.parametrize("server", [{}, {"root_path": "/api"}], ids=["", "root_path"])
async def test_transactions_have_the_name_of_an_ordinary_router(
    kept: _Kept, server: dict[str, Any]
) -> None:
    """One transaction for each request, and an error for a dependency that raises."""
    async with asked_of_both(FastAPI(), kept.take, **server) as seen:
        for mount, asked in seen.items():
            route = f"{mount}/{{path:path}}"
            assert list(map(sorted, asked.proxied)) == list(map(sorted, asked.ordinary))
            assert {name for events in asked.proxied for _, name in events} == {route}
            assert [kind for events in asked.proxied for kind, _ in events].count("error") == 1
            assert asked.bare == [[("transaction", route)]] * 3
