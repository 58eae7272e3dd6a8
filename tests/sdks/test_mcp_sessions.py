"""A real MCP server that runs twice, behind a gateway with two workers: sessions survive."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer

from tests.support.processes import ROOT, running
from tests.support.servers import run_app

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SESSIONS = 100
AT_ONCE = 10

GATEWAY = """
import os

from fastapi import FastAPI, Request

from fastapi_proxy_di import proxy_router

app = FastAPI()
app.include_router(proxy_router("tools"), prefix="/tools")


@app.middleware("http")
async def name_worker(request: Request, call_next):
    response = await call_next(request)
    response.headers["x-worker"] = str(os.getpid())
    return response
"""


def server(name: str) -> MCPServer:
    """Give an MCP server whose tool tells which one it is."""

    def where() -> str:
        """Tell the name of the server."""
        return name

    made = MCPServer(name)
    made.add_tool(where)
    return made


async def use_session(url: str, saw: Callable[[httpx2.Response], None]) -> set[str]:
    """Begin a session, call the tool three times, and end it; give the servers that responded."""

    async def note(response: httpx2.Response) -> None:
        saw(response)

    # A connection per request, so that the requests of a session reach both workers.
    client = httpx2.AsyncClient(
        headers={"connection": "close"}, event_hooks={"response": [note]}, timeout=60
    )
    async with (
        client,
        streamable_http_client(url, http_client=client) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        called = [await session.call_tool("where", {}) for _ in range(3)]
    return {result.structured_content["result"] for result in called if result.structured_content}


async def test_mcp_sessions_survive_two_workers_and_two_servers(tmp_path: Path) -> None:
    """Each session reaches the server that issued its id, 100 of 100, through both workers."""
    (tmp_path / "gate.py").write_text(GATEWAY)
    workers: set[str] = set()
    statuses: list[tuple[str, int]] = []
    gate = asyncio.Semaphore(AT_ONCE)

    def saw(response: httpx2.Response) -> None:
        workers.add(response.headers["x-worker"])
        statuses.append((response.request.method, response.status_code))

    async def one(url: str) -> set[str]:
        async with gate:
            return await use_session(url, saw)

    async with (
        run_app(server("first").streamable_http_app()) as first,
        run_app(server("second").streamable_http_app()) as second,
    ):
        variables = {
            "UPSTREAM_TOOLS_DESTINATIONS": f"{first.url},{second.url}",
            "UPSTREAM_TOOLS_AFFINITY__HEADER": "mcp-session-id",
            "UPSTREAM_TOOLS_AFFINITY__ISSUE": "true",
            "UPSTREAM_TOOLS_AFFINITY__KEY": "a long random text",
            "PYTHONPATH": str(ROOT),
        }
        words = ("-m", "uvicorn", "gate:app", "--port", "0", "--workers", "2")
        async with running(
            sys.executable, *words, environment=variables, folder=tmp_path
        ) as process:
            found = await process.line(r"running on (http://127\.0\.0\.1:\d+)")
            for _ in range(2):
                await process.line("startup complete")  # before, a worker may not listen yet
            url = f"{found[1]}/tools/mcp"
            reached = await asyncio.gather(*(one(url) for _ in range(SESSIONS)))
            await process.stop()

    assert [len(names) for names in reached] == [1] * SESSIONS
    assert set.union(*reached) == {"first", "second"}
    assert len(workers) == 2
    assert {status for _, status in statuses} <= {200, 202}
    assert [method for method, _ in statuses].count("DELETE") == SESSIONS
