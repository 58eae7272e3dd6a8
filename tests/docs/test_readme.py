"""The README's example works as the README says."""

from __future__ import annotations

import pytest
from websockets.exceptions import InvalidStatus

from tests.docs.conftest import Gateway, Snippet
from tests.docs.websocket_client import say
from tests.support.servers import Running

pytestmark = pytest.mark.e2e


KEY = {"x-api-key": "let-me-in"}


async def test_example_guards_the_mount_for_http_and_websocket(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """A request without the key is refused; with the key it is forwarded."""
    async with gateway(snippet("readme/app.py").app) as client:
        refused = await client.get("/billing/health")
        wrong = await client.get("/billing/health", headers={"x-api-key": "guess"})
        passed = await client.get("/billing/health", headers=KEY)
        with pytest.raises(InvalidStatus) as denied:
            await say(client, "/billing/live", "hello")
        heard, _ = await say(client, "/billing/live", "hello", headers=KEY)

    assert refused.status_code in (401, 403)
    assert wrong.status_code == 403
    assert passed.json() == {"status": "ok"}
    assert denied.value.response.status_code in (401, 403)
    assert heard == "billing heard hello"


async def test_example_forwards_in_an_endpoint_and_calls_the_upstream(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """Both endpoints of the example respond with the upstream's data."""
    async with gateway(snippet("readme/app.py").app) as client:
        paid = await client.post("/pay", content=b"40")
        summary = await client.get("/invoices/7/summary")

    assert paid.json() == {"tenant": "acme", "bytes": 2}
    assert summary.json() == {"number": 7, "total": 70}
