"""A store, and processes that share records there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.cluster.sharing import Process
from tests.support.redis_servers import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server."""
    with RedisServer("--enable-debug-command", "yes") as server:
        yield server


@pytest.fixture
async def start(server: RedisServer) -> AsyncIterator[Callable[..., Any]]:
    """Start a process; all are closed at the end, in little time."""
    started: list[Process] = []

    async def start(url: str = "", **settings: Any) -> Process:
        process = Process(url or server.url, **settings)
        await process.cluster.start()
        started.append(process)
        return process

    yield start
    async with asyncio.timeout(5):
        await asyncio.gather(*(process.cluster.aclose() for process in started))
