"""What makes a running app reload its settings: changed files, or SIGHUP."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from pathlib import Path
from typing import Any, Final, Literal

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.reloading import Reloader
from fastapi_proxy_di.integration.watching import watch

__all__ = ["start_reloads", "trigger_faults"]

_logger = logging.getLogger("fastapi_proxy_di.reload")

_OTHER_SERVERS: Final = ("gunicorn", "hypercorn", "granian", "daphne")

Trigger = Literal["off", "watch", "signal"]


def trigger_faults(trigger: Trigger, *, starts_workers: bool = False) -> list[str]:
    """Say why ``reload=signal`` cannot work in this process, in a list of at most one fault.

    Args:
        trigger: The setting ``reload``.
        starts_workers: Whether this process is to start workers, in which the app runs.
    """
    if trigger != "signal":
        return []
    reason = "SIGHUP replaces the workers" if starts_workers else _obstacle()
    fault = "ProxySettings: reload (FASTAPI_PROXY_RELOAD): signal needs a lone uvicorn or `serve`"
    return [] if reason is None else [f"{fault} without workers, and {reason}; use watch"]


def _obstacle() -> str | None:
    if not hasattr(signal, "SIGHUP"):
        return "this system has no SIGHUP"
    import multiprocessing  # noqa: PLC0415  # only this setting needs it

    if multiprocessing.parent_process() is not None:
        return "this process is a worker of another one"
    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.stem
    software = os.environ.get("SERVER_SOFTWARE", "").partition("/")[0]
    server = next((one for one in _OTHER_SERVERS if one in (name, software)), None)
    if server is not None:
        return f"{server} uses SIGHUP itself"
    if threading.current_thread() is not threading.main_thread():
        return "this app does not run in the main thread"
    handler = signal.getsignal(signal.SIGHUP)
    if handler is signal.SIG_IGN:
        return "SIGHUP is ignored here, as by nohup"
    if handler is not signal.SIG_DFL:
        return "this process handles SIGHUP already"
    return None


def start_reloads(trigger: Trigger, reloader: Reloader) -> Callable[[], Awaitable[None]]:
    """Reload the settings when a file changes or SIGHUP comes.

    Args:
        trigger: The setting ``reload``.
        reloader: Reads the settings.

    Returns:
        A function that ends this.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin(work: Coroutine[Any, Any, None], name: str) -> None:
        task = loop.create_task(work, name=name, context=Context())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if trigger == "watch":
        begin(watch(reloader.files, lambda: _reload(reloader)), "watch of the settings")
    elif trigger == "signal":
        loop.add_signal_handler(
            signal.SIGHUP, lambda: begin(_reload(reloader), "reload of the settings")
        )

    async def stop() -> None:
        if trigger == "signal":
            loop.remove_signal_handler(signal.SIGHUP)  # back to the system's default
        under_way = tuple(tasks)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    return stop


async def _reload(reloader: Reloader) -> None:
    """Reload; faults have been logged, and nothing that is raised ends the watch."""
    try:
        await reloader.reload()
    except SettingsError:
        pass
    except Exception:
        _logger.exception("reloading the settings failed unexpectedly")
