"""``demo``: starts upstream processes, a gateway in front of them, and load through it.

Only the upstreams are separate processes. Gateway, load and table run on one event loop, so that
the table can read the balancer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Any, Final, NoReturn

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from fastapi_proxy_di import (
    Balancer,
    HealthSettings,
    Upstream,
    UpstreamSettings,
    metrics_router,
    proxy_router,
    status_router,
)
from fastapi_proxy_di.cli.background_server import serving
from fastapi_proxy_di.cli.demo import live, once
from fastapi_proxy_di.cli.demo.fleet import Fleet
from fastapi_proxy_di.cli.demo.load import Load
from fastapi_proxy_di.cli.demo.upstream import HEALTH_PATH
from fastapi_proxy_di.cli.listening import listen, url

_PORT: Final = 8000
_SHUTDOWN_SECONDS: Final = 10
_TERMINATED: Final = 128 + signal.SIGTERM


def run(port: int | None, upstreams: int, *, once: bool) -> int:
    """Run the demo.

    Args:
        port: Port of the gateway; ``None`` is 8000, or with ``once`` any free one.
        upstreams: Number of upstreams.
        once: Run a short load, check it and return; without it, run until a signal.

    Returns:
        0; 1 if a request failed without an excuse or an upstream did not come back; 2 if
        the port is taken; 143 if SIGTERM ended it.

    Raises:
        KeyboardInterrupt: Ctrl-C; everything has ended.
    """
    if port is None:
        port = 0 if once else _PORT
    listening = listen("127.0.0.1", port)
    if listening is None:
        return 2
    fleet = Fleet(upstreams)
    with listening:
        try:
            return asyncio.run(_until_sigterm((_once if once else _live)(listening, fleet)))
        except asyncio.CancelledError:
            return _TERMINATED
        except ExceptionGroup as group:
            print("\n".join(map(str, group.exceptions)), file=sys.stderr)
        except TimeoutError as error:
            print(f"FAILED {error}", file=sys.stderr)
    return 1


class DemoSettings(UpstreamSettings, name="demo"):
    """Settings of the demo's upstream; ``UPSTREAM_DEMO_*`` variables add to them."""


def gateway(fleet: Fleet) -> tuple[FastAPI, Upstream]:
    """Make the gateway as a user would, with short intervals of probes.

    Its status page and metrics have no login: the demo listens on 127.0.0.1 only.
    """
    settings = DemoSettings(
        destinations=[upstream.url for upstream in fleet.upstreams],
        health=HealthSettings(path=HEALTH_PATH, interval=0.5, timeout=1, fall=2, rise=1),
    )
    upstream = Upstream(settings)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # DNS rebinding: the host name of a foreign web page may resolve to 127.0.0.1.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.include_router(status_router(actions=True, unguarded=True), prefix="/upstreams")
    app.include_router(metrics_router())
    app.include_router(proxy_router(upstream))
    return app, upstream


@contextlib.asynccontextmanager
async def _gateway_running(
    listening: socket.socket, fleet: Fleet
) -> AsyncIterator[tuple[Balancer, Load]]:
    """Start upstreams, gateway and load; at the end stop load, upstreams and gateway."""
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(fleet.stop)
        await fleet.start()
        app, upstream = gateway(fleet)
        await stack.enter_async_context(serving(_server_config(app), listening))
        # The upstreams stop before the gateway: that ends open streams, for which the gateway
        # would wait.
        stack.push_async_callback(fleet.stop)
        load = Load(listening.getsockname()[1])
        await stack.enter_async_context(load)
        yield upstream.of(app), load


async def _once(listening: socket.socket, fleet: Fleet) -> int:
    logging.getLogger("fastapi_proxy_di").addHandler(logging.NullHandler())
    async with _gateway_running(listening, fleet) as (balancer, load):
        print(f"Gateway on {url(listening)}, {len(fleet.upstreams)} upstreams", flush=True)
        outages = await once.disturb(load, fleet, partial(_failed_attempts, balancer))
    return once.summarise(load.tally, outages)


def _failed_attempts(balancer: Balancer, address: str) -> int:
    return sum(one.failures for one in balancer.destinations if one.url == address)


async def _live(listening: socket.socket, fleet: Fleet) -> NoReturn:
    console = live.DemoConsole(highlight=False, markup=False)
    live.say_what_starts(console, url(listening), fleet)
    async with _gateway_running(listening, fleet) as (balancer, load):
        await live.show(
            console, url(listening), partial(live.rows, balancer, fleet, load.tally), load
        )


def _server_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="critical",  # the table counts streams that broke with their upstream
        access_log=False,
        proxy_headers=False,
        ws="websockets-sansio",
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


async def _until_sigterm(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main``; SIGTERM cancels it, as ``asyncio.run`` lets Ctrl-C do."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await main
