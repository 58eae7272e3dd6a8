"""Settings of the upstream, and a client that is logged in and may act."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import Depends
from fastapi.testclient import TestClient

from fastapi_proxy_di import status_router
from tests.integration.status_page.gateway import DOWN, UP, admin, gateway


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set an upstream with a destination that is up and one that is down."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"{UP},{DOWN}")
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__PATH", "/health")
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__FALL", "1")


@pytest.fixture
def client() -> Iterator[TestClient]:
    """Give a client of a gateway that lets it act."""
    router = status_router(actions=True, allowed_origins=["https://ops.example"])
    with TestClient(gateway(router, dependencies=[Depends(admin)])) as client:
        client.headers["authorization"] = "Basic YTpi"
        yield client
