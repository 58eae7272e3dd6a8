"""The upstreams of the end-to-end tests, as processes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.servers import nginx, uvicorn
from tests.support.processes import Process


@dataclass(frozen=True, slots=True)
class Upstream:
    """The upstream of an end-to-end test, and the records of the requests that reached it.

    Attributes:
        app: The uvicorn process.
        destination: Address that the gateway has: of that process, or an nginx in front of it.
        records: Files with a line per request that came, one per server.
    """

    app: Process
    destination: str
    records: tuple[Path, ...]

    @property
    def environment(self) -> dict[str, str]:
        """Settings of a gateway in front of this upstream."""
        return {"UPSTREAM_BILLING_DESTINATIONS": self.destination}

    @property
    def seen(self) -> list[list[str]]:
        """Give the recorded lines of each server."""
        return [path.read_text().splitlines() for path in self.records]


@contextlib.asynccontextmanager
async def _upstream(folder: Path) -> AsyncIterator[Upstream]:
    record = folder / "record"
    record.touch()
    async with uvicorn("tests.e2e.upstream:app", environment={"RECORD": str(record)}) as app:
        yield Upstream(app, app.url, (record,))


@contextlib.asynccontextmanager
async def _real_upstream(kind: str, folder: Path, upstream: Upstream) -> AsyncIterator[Upstream]:
    if kind == "uvicorn":
        yield upstream
        return
    async with nginx(folder, upstream.destination) as front:
        yield Upstream(upstream.app, front.url, (*upstream.records, folder / "access.log"))


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    """Run a uvicorn process."""
    async with _upstream(tmp_path) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_upstream(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Upstream]:
    """Run one uvicorn process for all tests of a module that read no record."""
    async with _upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


@pytest.fixture(params=["uvicorn", "nginx"])
async def real_upstream(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream
) -> AsyncIterator[Upstream]:
    """Run a uvicorn process, once bare and once behind a real nginx."""
    async with _real_upstream(request.param, tmp_path, upstream) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["uvicorn", "nginx"])
async def shared_real_upstream(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_upstream: Upstream,
) -> AsyncIterator[Upstream]:
    """Run one upstream of each kind for all tests of a module that read no record."""
    folder = tmp_path_factory.mktemp("front")
    async with _real_upstream(request.param, folder, shared_upstream) as running:
        yield running
