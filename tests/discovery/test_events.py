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
            (
                f"INFO billing has a new list of destinations ({API}: 4 added: a, b, c, ...;"
                " 5 in the list)"
            ),
        ),
        (
            DestinationsFound("billing", source=API, added=("a",), removed=("b",), found=1),
            (
                f"INFO billing has a new list of destinations ({API}: 1 added: a; 1 removed: b;"
                " 1 in the list)"
            ),
        ),
        (
            DiscoveryFailed("billing", source=API, reason="SERVFAIL", kept=3),
            (
                f"WARNING billing cannot find destinations ({API}: SERVFAIL; its last 3"
                " destinations are used for discovery.keep seconds)"
            ),
        ),
        (
            DiscoveryFailed("billing", source=API, reason="SERVFAIL"),
            (
                f"WARNING billing cannot find destinations ({API}: SERVFAIL; it has no destinations"
                " that could be used meanwhile)"
            ),
        ),
        (
            DiscoveryRecovered("billing", source=API),
            f"WARNING billing finds destinations again ({API})",
        ),
    ],
)
def test_event_is_logged(event: Event, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    """With counts, and at most three addresses."""
    caplog.set_level("INFO", "fastapi_proxy_di.discovery")
    Events().emit(event)

    assert [f"{one.levelname} {one.getMessage()}" for one in caplog.records] == [expected]
