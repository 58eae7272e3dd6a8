"""What the log says of discovery."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.discovery.events import (
    DestinationsFound,
    DiscoveryFailed,
    DiscoveryRecovered,
)
from fastapi_proxy_di.supervision.events import Event, Events

API = "dns+http://api.internal"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            DestinationsFound("billing", source=API, added=("a", "b", "c", "d"), found=5),
            ("INFO", f"billing has other destinations ({API}: 4 added: a, b, c, ...; 5 now)"),
        ),
        (
            DestinationsFound("billing", source=API, added=("a",), removed=("b",), found=1),
            ("INFO", f"billing has other destinations ({API}: 1 added: a; 1 removed: b; 1 now)"),
        ),
        (
            DiscoveryFailed("billing", source=API, reason="SERVFAIL", kept=3),
            (
                "WARNING",
                f"billing cannot find destinations ({API}: SERVFAIL; the last 3 stay for a while)",
            ),
        ),
        (
            DiscoveryFailed("billing", source=API, reason="SERVFAIL"),
            ("WARNING", f"billing cannot find destinations ({API}: SERVFAIL; there are none)"),
        ),
        (
            DiscoveryRecovered("billing", source=API),
            ("WARNING", f"billing finds destinations again ({API})"),
        ),
    ],
)
def test_event_is_logged(
    event: Event, expected: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """With counts, and at most three addresses."""
    caplog.set_level("INFO", "fastapi_proxy_di.discovery")
    Events().emit(event)

    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [expected]
