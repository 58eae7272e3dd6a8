"""Runs the worker processes of ``serve`` by uvicorn's own supervisor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from fastapi_proxy_di.integration.runtime import compose_all
from fastapi_proxy_di.integration.triggers import trigger_faults
from fastapi_proxy_di.settings import UpstreamSettings, read_proxy_settings, settings_error
from fastapi_proxy_di.supervision.events import Events

__all__ = ["check_settings", "run_workers"]


class _Supervisor(Multiprocess):
    """Remembers that Ctrl-C ended it."""

    interrupted = False

    def handle_int(self) -> None:
        self.interrupted = True
        super().handle_int()


def run_workers(config: uvicorn.Config, listening: socket.socket) -> int:
    """Serve until a signal comes; a worker that dies is replaced.

    Args:
        config: The configuration of each worker.
        listening: A bound socket, which all workers accept connections from.

    Returns:
        0 after SIGTERM, 2 if a worker could not start.

    Raises:
        KeyboardInterrupt: Ctrl-C; the workers have shut down in order.
    """
    supervisor = _Supervisor(config, [listening])
    supervisor.run()
    if supervisor.interrupted:
        raise KeyboardInterrupt
    failed = any(one.exitcode == STARTUP_FAILURE for one in supervisor.processes)
    return 2 if failed else 0


def check_settings(settings: Mapping[str, UpstreamSettings]) -> None:
    """Find the faults that only the start finds, before workers start one after the other.

    Raises:
        SettingsError: Every fault.
    """
    asyncio.run(_compose_and_close(settings))


async def _compose_and_close(settings: Mapping[str, UpstreamSettings]) -> None:
    of_app, faults = read_proxy_settings()
    if of_app is not None:
        faults += trigger_faults(of_app.reload, starts_workers=True)
    upstreams = compose_all(settings, Events(), faults)
    for one in upstreams:
        await one.aclose()
    if faults:
        raise settings_error(faults)
