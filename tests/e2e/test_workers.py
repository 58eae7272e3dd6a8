"""Metrics of a gateway that a server runs in several processes."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

from tests.e2e.servers import granian, hypercorn, uvicorn
from tests.support.processes import Process

pytestmark = pytest.mark.e2e

_APP = "tests.e2e.observed_gateway:app"
_ENVIRONMENT = {"UPSTREAM_BILLING_DESTINATIONS": "http://127.0.0.1:9"}
_WARNING = re.compile(r"process (\d+) is one of 2 workers")


@pytest.mark.parametrize(
    "serve",
    [
        uvicorn,
        pytest.param(granian, marks=pytest.mark.slow),
        pytest.param(hypercorn, marks=pytest.mark.slow),
    ],
)
async def test_scrape_names_its_process(
    serve: Callable[..., AbstractAsyncContextManager[Process]],
) -> None:
    """The label differs between workers; each one that is scraped logs one warning."""
    async with serve(_APP, "--workers", "2", environment=_ENVIRONMENT) as server:
        scraped: set[str] = set()
        while len(scraped) < 2:  # each connection may come to the same worker
            async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
                page = (await client.get("/metrics")).text
            found = {*re.findall(r'process="(\d+)"', page)}
            assert len(found) == 1
            scraped |= found

    assert str(server.pid) not in scraped
    warned = [match[1] for line in server.lines if (match := _WARNING.search(line))]
    assert sorted(warned) == sorted(scraped)


async def test_single_process_is_not_warned_of() -> None:
    """The label is there as well, so that queries are the same in every deployment."""
    async with (
        uvicorn(_APP, environment=_ENVIRONMENT) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        page = (await client.get("/metrics")).text

    assert {*re.findall(r'process="(\d+)"', page)} == {str(server.pid)}
    assert not [line for line in server.lines if "WARNING" in line]
