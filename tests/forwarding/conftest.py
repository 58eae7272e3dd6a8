"""A clock of deadlines that only the test moves."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.forwarding.deadlines import Deadlines
from fastapi_proxy_di.forwarding.watcher import Watcher
from tests.support.stepped_loop import SteppedLoop


@pytest.fixture
async def deadline_clock(monkeypatch: pytest.MonkeyPatch) -> SteppedLoop:
    """Make deadlines of requests pass only by ``advance``, however slow the machine is.

    Connections still note their activity by the real clock, so advance by more than a deadline.
    """
    clock = SteppedLoop()
    original = Watcher.__init__

    def stepped(watcher: Watcher, name: str, deadlines: Deadlines) -> None:
        original(watcher, name, deadlines)
        watcher._loop = clock  # type: ignore[assignment]

    monkeypatch.setattr(Watcher, "__init__", stepped)
    return clock
