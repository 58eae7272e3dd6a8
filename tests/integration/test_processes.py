"""The app under uvicorn's own supervisors: several workers, and reload on change."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.processes import ROOT, running

pytestmark = pytest.mark.e2e

_DEADLINE_SECONDS = 30.0
_APP = """
import os

from fastapi import FastAPI

from fastapi_proxy_di import proxy_router

app = FastAPI()


@app.get("/who")
async def who() -> str:
    return "{name} %d" % os.getpid()


app.include_router(proxy_router("billing"), prefix="/billing")
"""


@contextlib.asynccontextmanager
async def _uvicorn(
    folder: Path, origin: ScriptedOrigin, *options: str
) -> AsyncIterator[tuple[str, int]]:
    """Run the app in ``folder`` by the command; end it with its children."""
    words = ("-m", "uvicorn", "gate:app", "--port", "0", "--app-dir", str(folder), *options)
    variables = {"UPSTREAM_BILLING_DESTINATIONS": origin.url, "PYTHONPATH": str(ROOT)}
    async with running(sys.executable, *words, environment=variables, folder=folder) as process:
        found = await process.line(r"running on http://127\.0\.0\.1:(\d+)")
        yield "127.0.0.1", int(found[1])
        await process.stop()
        assert not any("Traceback" in line for line in process.lines), process.lines


async def _until(address: tuple[str, int], target: str, wanted: bytes) -> None:
    """Send requests until a worker responds as expected."""
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while True:
            with contextlib.suppress(OSError, EOFError):
                reply = await fetch(address, target=target)
                if reply.status == 200 and wanted in reply.body:
                    return
            await asyncio.sleep(0.02)


async def test_each_worker_proxies(tmp_path: Path) -> None:
    """``--workers 2``: each has its own pool; no connection is left at the end."""
    (tmp_path / "gate.py").write_text(_APP.format(name="one"))
    async with ScriptedOrigin() as origin:
        async with _uvicorn(tmp_path, origin, "--workers", "2") as address:
            workers: set[bytes] = set()
            await _until(address, "/who", b"one")
            async with asyncio.timeout(_DEADLINE_SECONDS):
                while len(workers) < 2:
                    workers.add((await fetch(address, target="/who")).body)
            statuses = [(await fetch(address, target="/billing/x")).status for _ in range(20)]
        await origin.all_left()

    assert statuses == [200] * 20
    assert len(origin.requests) == 20


async def test_reload_starts_anew(tmp_path: Path) -> None:
    """``--reload``: the changed app proxies; the old one left no connection."""
    gate = tmp_path / "gate.py"
    gate.write_text(_APP.format(name="one"))
    async with ScriptedOrigin() as origin:
        async with _uvicorn(tmp_path, origin, "--reload") as address:
            await _until(address, "/billing/x", b"ok")
            gate.write_text(_APP.format(name="another"))
            await _until(address, "/who", b"another")
            reply = await fetch(address, target="/billing/x")
        await origin.all_left()

    assert reply.status == 200
    assert origin.connections == 2
