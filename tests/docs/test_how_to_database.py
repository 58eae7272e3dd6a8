"""The app of the page on upstreams from a database: rows come, change and go."""

from __future__ import annotations

import contextlib
import gc
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from tests.docs.conftest import Gateway, Snippet
from tests.docs.websocket_client import say
from tests.support.gateways import until
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import Running

pytestmark = pytest.mark.e2e

Sql = Callable[..., None]


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sql:
    """Give a function that changes the table."""
    file = tmp_path / "tenants.db"
    monkeypatch.setenv("TENANTS_DATABASE", str(file))

    def execute(statement: str, *values: str) -> None:
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            database.execute(statement, values)

    execute("CREATE TABLE tenants (name TEXT PRIMARY KEY, url TEXT NOT NULL)")
    return execute


@pytest.fixture
def tenants(sql: Sql, snippet: Snippet, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the app, which looks at the table often."""
    module = snippet("how_to/database_tenants.py")
    monkeypatch.setattr(module, "SECONDS", 0.02)
    return module


async def statuses(client: httpx.AsyncClient, *names: str) -> list[int]:
    """Give the status of each tenant's page."""
    return [(await client.get(f"/{name}/invoices/7")).status_code for name in names]


async def test_rows_are_tenants(
    sql: Sql, tenants: ModuleType, gateway: Gateway, billing: tuple[Running, Running]
) -> None:
    """Those at the start, and those that come and go, by HTTP and WebSocket."""
    one, two = billing
    sql("INSERT INTO tenants VALUES ('acme', ?)", one.url)
    async with gateway(tenants.app) as client:
        running = tenants.app.state.tenants.balancers
        first = await statuses(client, "acme", "blue")
        sql("INSERT INTO tenants VALUES ('blue', ?)", two.url)
        await until(lambda: "blue" in running)
        served = [(await client.get(f"/{name}/invoices/7")).json() for name in ("acme", "blue")]
        heard, _ = await say(client, "/blue/live", "hello")
        sql("DELETE FROM tenants WHERE name = 'acme'")
        await until(lambda: "acme" not in running)
        last = await statuses(client, "acme", "blue")

    assert (first, last) == ([200, 404], [404, 200])
    assert [one["served_by"] for one in served] == [billing[0].port, billing[1].port]
    assert heard == "billing heard hello"


async def test_changed_row_changes_the_destination(
    sql: Sql, tenants: ModuleType, gateway: Gateway
) -> None:
    """The upstream goes on, with its counts."""
    async with (
        ScriptedOrigin(always(response_bytes(body=b"one"))) as one,
        ScriptedOrigin(always(response_bytes(body=b"two"))) as two,
    ):
        sql("INSERT INTO tenants VALUES ('acme', ?)", one.url)
        async with gateway(tenants.app) as client:
            balancer = tenants.app.state.tenants.balancers["acme"]
            before = await client.get("/acme/")
            sql("UPDATE tenants SET url = ?", two.url)
            await until(lambda: balancer.destinations[0].url == two.url)
            after = await client.get("/acme/")

    assert (before.text, after.text) == ("one", "two")


async def test_row_with_a_fault_stops_no_other(
    sql: Sql, tenants: ModuleType, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the log, as is a table that cannot be read; a mended row is served."""
    async with ScriptedOrigin() as origin:
        sql("INSERT INTO tenants VALUES ('acme', 'ftp://user:geheim@x'), ('Blue', 'http://x')")
        sql("INSERT INTO tenants VALUES ('good', ?)", origin.url)
        with caplog.at_level(logging.WARNING, "tenants"):
            async with gateway(tenants.app) as client:
                first = await statuses(client, "acme", "Blue", "good")
                sql("ALTER TABLE tenants RENAME TO other")
                await until(lambda: "the tenants stay as they are" in caplog.text)
                sql("ALTER TABLE other RENAME TO tenants")
                sql("UPDATE tenants SET url = ? WHERE name = 'acme'", origin.url)
                await until(lambda: "acme" in tenants.app.state.tenants.balancers)
                last = await statuses(client, "acme", "good")

    assert (first, last) == ([404, 404, 200], [200, 200])
    assert "tenant 'Blue': 'Blue' is not a name of an upstream" in caplog.text
    assert "geheim" not in caplog.text


async def test_app_can_be_started_again(sql: Sql, tenants: ModuleType, gateway: Gateway) -> None:
    """Blocks that did not end before are no trouble."""
    async with ScriptedOrigin() as origin:
        sql("INSERT INTO tenants VALUES ('acme', ?)", origin.url)
        found = []
        for _ in range(2):
            async with gateway(tenants.app) as client:
                found += await statuses(client, "acme")
            gc.collect()

    assert found == [200, 200]
