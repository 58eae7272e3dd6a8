"""Taps that raise, are slow, or cannot be used: the responses pass as without them."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import pytest

from fastapi_proxy_di import (
    SseEvent,
    Tap,
    TapExchange,
    proxy_router,
)
from tests.forwarding.tapped import SEEN, TWO, Log, Logs, tapped, through
from tests.support.engines import engine
from tests.support.http_client import fetch

pytestmark = pytest.mark.e2e

SECRET: Final = "what-the-client-chose"


class Raising(Log):
    """Raises at the first event, and at the end."""

    def event(self, event: SseEvent) -> None:
        """Keep the event, and raise."""
        super().event(event)
        raise KeyError(SECRET)

    def end(self, outcome: str) -> None:
        """Keep the end, and raise."""
        super().end(outcome)
        raise KeyError(SECRET)


async def test_tap_that_raises_is_logged_once_and_gets_only_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With its name and place; the message, which a client may choose, at DEBUG alone."""
    made: list[Raising] = []

    def tap(exchange: TapExchange) -> Tap:
        made.append(Raising(exchange))
        return made[-1]

    with caplog.at_level(logging.DEBUG, "fastapi_proxy_di.taps"):
        reply = await through(engine(*TWO), tap)

    assert reply.body == b"".join(TWO)
    assert (made[0].events, made[0].ends) == (SEEN[:1], ["complete"])
    shown = [one for one in caplog.records if one.levelno > logging.DEBUG]
    assert [one.levelname for one in shown] == ["ERROR"]
    text = shown[0].getMessage()
    assert "billing" in text
    assert "tap raised KeyError" in text
    assert "test_tap_faults.py" in text
    assert SECRET not in text
    assert shown[0].exc_info is None
    assert SECRET in caplog.text


class Async:
    """A tap with a coroutine method, which is seen only when it is made."""

    async def event(self, event: SseEvent) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "tap", [lambda exchange: 1 / 0, lambda exchange: Async(), lambda exchange: "text"]
)
async def test_factory_that_fails_leaves_the_response_alone(
    tap: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It raises, or gives what is no tap."""
    reply = await through(engine(*TWO), tap)

    assert reply.body == b"".join(TWO)
    assert [one.levelname for one in caplog.records if one.name.endswith("taps")] == ["ERROR"]


async def test_slow_tap_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """In one WARNING, however often it is slow."""

    def sluggish(event: SseEvent, exchange: TapExchange) -> None:
        time.sleep(0.006)

    async with tapped(engine(*TWO), sluggish) as gate:
        for _ in range(2):
            await fetch(gate.address, "GET", "/billing/x")

    warned = [one for one in caplog.records if one.name == "fastapi_proxy_di.taps"]
    assert [one.levelname for one in warned] == ["WARNING"]
    assert "sluggish" in warned[0].getMessage()


async def coroutine(exchange: TapExchange) -> None:
    """Is a coroutine function."""


class AsyncCall:
    """Is called asynchronously."""

    async def __call__(self, exchange: TapExchange) -> None:
        """Do nothing."""


class AsyncEvent(Tap):
    """Takes events asynchronously."""

    def __init__(self, exchange: TapExchange) -> None:
        """Do nothing."""

    async def event(self, event: SseEvent) -> None:  # type: ignore[override]
        """Do nothing."""


@pytest.mark.parametrize(
    ("tap", "fault"),
    [
        (coroutine, "coroutine is async"),
        (AsyncCall(), "AsyncCall is async"),
        (AsyncEvent, "AsyncEvent is async"),
        (lambda: None, "takes neither"),
        (lambda event, exchange, more: None, "takes neither"),
        ("text", "no function"),
    ],
)
def test_tap_that_cannot_be_used_is_a_fault_where_the_router_is_made(tap: Any, fault: str) -> None:
    """The message says what is wrong."""
    with pytest.raises(ValueError, match=f"tap: .*{fault}"):
        proxy_router("billing", tap=tap)


def test_tap_without_http_is_a_fault() -> None:
    """WebSockets have no taps."""
    with pytest.raises(ValueError, match="tap: only HTTP"):
        proxy_router("billing", tap=Logs(), http=False)
