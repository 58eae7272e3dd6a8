"""Probes run in no context of a request, though a request may start their loop."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

import pytest

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.supervision.events import DestinationDown, Event
from tests.support.gateways import billing, until
from tests.support.origins import ScriptedOrigin, always, response_bytes

REQUEST: ContextVar[str] = ContextVar("request", default="none")


def probe_with(balancer: Balancer) -> None:
    """Start the probes."""
    balancer.configure_health(path="/health", fall=1)


def replace(balancer: Balancer) -> None:
    """Add the destination a second time, with probes."""
    (url,) = (one.url for one in balancer.destinations)
    balancer.configure_health(path="/health", fall=1)
    balancer.replace_destinations([url, f"{url}/other"])


@pytest.mark.parametrize("change", [probe_with, replace])
async def test_probes_that_a_request_starts_have_no_context_of_it(
    change: Callable[[Balancer], None],
) -> None:
    """Listeners of what the probes find see none of that request."""
    seen: dict[str | None, str] = {}

    def listen(event: Event) -> None:
        if isinstance(event, DestinationDown):
            seen[event.destination] = REQUEST.get()

    async with (
        ScriptedOrigin(always(response_bytes(503))) as origin,
        Balancer.from_settings(billing(origin.url)) as balancer,
    ):
        balancer.subscribe(listen)
        _ = REQUEST.set("that which changes")
        change(balancer)
        await until(lambda: len(seen) == len(balancer.destinations))

    assert set(seen.values()) == {"none"}
