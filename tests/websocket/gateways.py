"""Runs a gateway for WebSockets under each server that its tunnels must work with.

``GATEWAY_WEBSOCKETS`` names the servers to use, e.g. ``websockets`` for uvicorn's deprecated
implementation, also in the tests that do not choose a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import pytest
from fastapi import FastAPI

from tests.support.gateways import Gateway, gateway_app
from tests.support.servers import run_app, run_hypercorn

__all__ = ["UVICORN", "every_server", "every_uvicorn", "no_tunnel_left", "serving", "tunnels"]

_SERVERS: Final = os.environ.get(
    "GATEWAY_WEBSOCKETS", "websockets-sansio,wsproto,websockets,hypercorn"
).split(",")
UVICORN: Final = [name for name in _SERVERS if name != "hypercorn"]
"""The variants of uvicorn; the first is what a test gets that asks for none."""

_warns_on_import = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The `websockets` implementation is deprecated"
)


def _each(servers: Sequence[str]) -> pytest.MarkDecorator:
    deprecated = pytest.param("websockets", marks=_warns_on_import)
    given = [deprecated if server == "websockets" else server for server in servers]
    return pytest.mark.parametrize("server", given)


every_server = _each(_SERVERS)
every_uvicorn = _each(UVICORN)


@contextlib.asynccontextmanager
async def tunnels(
    *destinations: str,
    server: str | None = None,
    uvicorn: dict[str, Any] | None = None,
    hypercorn: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Gateway]:
    """Run a gateway to these destinations.

    Args:
        *destinations: Addresses.
        server: ``hypercorn``, or uvicorn's WebSocket implementation.
        uvicorn: Further options of ``uvicorn.Config``.
        hypercorn: Attributes of ``hypercorn.Config``.
        **options: As for ``gateway_app``.
    """
    app = gateway_app(*destinations, **options)
    async with serving(app, server=server, uvicorn=uvicorn, hypercorn=hypercorn) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def serving(
    app: FastAPI,
    *,
    server: str | None = None,
    uvicorn: dict[str, Any] | None = None,
    hypercorn: dict[str, Any] | None = None,
) -> AsyncIterator[Gateway]:
    """Run an app whose upstream is ``billing``; arguments as for ``tunnels``."""
    if server == "hypercorn":
        async with run_hypercorn(app, **(hypercorn or {})) as running:
            yield Gateway(running, app)
    else:
        config = {"ws": server or UVICORN[0], "ws_ping_interval": None, **(uvicorn or {})}
        async with run_app(app, **config) as running:
            yield Gateway(running, app)


async def no_tunnel_left(gateway: Gateway, seconds: float = 10.0) -> None:
    """Wait until no tunnel is in flight and no copying task runs.

    Raises:
        TimeoutError: One is left after that many seconds.
    """
    async with asyncio.timeout(seconds):
        while gateway.in_flight or _copying():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)


def _copying() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("websocket ")]
