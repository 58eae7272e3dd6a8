"""A saved file while an event stream is open: which servers start the new process, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.commands import accepts_connections, serving
from tests.servers.upstream import Endless
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e


def save(folder: Path) -> None:
    """Change the app, so that its readiness has another text."""
    file = folder / "main.py"
    file.write_text(file.read_text().replace('"ready"', '"changed"'))


@pytest.mark.parametrize(
    ("server", "options", "started"),
    [
        ("uvicorn", "--reload --timeout-graceful-shutdown 1", "Application startup complete"),
        ("granian", "--reload --workers-kill-timeout 1", "Started worker"),
    ],
)
async def test_reload_with_a_bound_cuts_the_stream(
    tmp_path: Path, server: str, options: str, started: str
) -> None:
    """After the bound the new process serves."""
    async with (
        ScriptedOrigin(Endless()) as origin,
        serving(server, options, tmp_path, origin.url) as process,
        connect(process.address) as client,
    ):
        await process.line(started)
        await client.send(request(target="/billing/events"))
        stream = await client.read_head()
        save(tmp_path)
        stream = await client.read_body(stream)
        await process.line(started)
        await accepts_connections(process)
        ready = await fetch(process.address, target="/ready")
        await origin.all_left()

    assert stream.ending is Ending.BROKEN
    assert ready.json() == {"status": "changed"}


@pytest.mark.parametrize(("server", "options"), [("uvicorn", "--reload"), ("fastapi dev", "")])
async def test_reload_without_a_bound_waits_for_the_stream(
    tmp_path: Path, server: str, options: str
) -> None:
    """The new process starts once the stream has ended."""
    upstream = Endless()
    async with (
        ScriptedOrigin(upstream) as origin,
        serving(server, options, tmp_path, origin.url) as process,
        connect(process.address) as client,
    ):
        await process.line("Application startup complete")
        await client.send(request(target="/billing/events"))
        stream = await client.read_head()
        await client.read_chunk()
        save(tmp_path)
        await process.line("Waiting for connections to close")
        upstream.finish.set()
        stream = await client.read_body(stream)
        await process.line("Application startup complete")
        ready = await fetch(process.address, target="/ready")

    assert stream.ending is Ending.LAST_CHUNK
    assert ready.json() == {"status": "changed"}
