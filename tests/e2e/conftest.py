"""The upstreams of the end-to-end tests, as processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.servers import nginx, uvicorn
from tests.support.processes import Process


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where requests end up, and what reached it.

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
        """Settings of a gateway in front of it."""
        return {"UPSTREAM_BILLING_DESTINATIONS": self.destination}

    @property
    def seen(self) -> list[list[str]]:
        """What came, per record."""
        return [path.read_text().splitlines() for path in self.records]


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    """Run a uvicorn process."""
    record = tmp_path / "record"
    record.touch()
    async with uvicorn("tests.e2e.upstream:app", environment={"RECORD": str(record)}) as app:
        yield Upstream(app, app.url, (record,))


@pytest.fixture(params=["uvicorn", "nginx"])
async def real_upstream(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream
) -> AsyncIterator[Upstream]:
    """Run a uvicorn process, once bare and once behind a real nginx."""
    if request.param == "uvicorn":
        yield upstream
        return
    async with nginx(tmp_path, upstream.destination) as front:
        yield Upstream(upstream.app, front.url, (*upstream.records, tmp_path / "access.log"))
