from collections.abc import Iterator

import httpx
import pytest
from call import app
from fastapi.testclient import TestClient

from fastapi_proxy_di import Upstream


class FakeBilling:
    """Replaces the balancer. Needs no socket and no settings."""

    def __init__(self) -> None:
        self.client = httpx.AsyncClient(
            base_url="http://billing", transport=httpx.MockTransport(self.respond)
        )

    def respond(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/invoices/7":
            return httpx.Response(200, json={"number": 7, "total": 70})
        return httpx.Response(404)


@pytest.fixture
def client() -> Iterator[TestClient]:
    fake = FakeBilling()
    app.dependency_overrides[Upstream("billing")] = lambda: fake
    with TestClient(app) as client:
        yield client
    app.dependency_overrides.clear()


def test_summary_gives_the_total(client: TestClient) -> None:
    assert client.get("/invoices/7/summary").json() == {"number": 7, "total": 70}


def test_summary_of_an_unknown_invoice_is_404(client: TestClient) -> None:
    assert client.get("/invoices/8/summary").status_code == 404
