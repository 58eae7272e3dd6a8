"""The gateway of the drill: a real process whose settings come from the environment.

``python -m tests.drill.gateway PORT``; ``DRILL_WORKERS`` is the number of its processes. Each event
of the upstream becomes a line of JSON on the standard output, with the machine's monotonic seconds,
so that the drill can compute the time from a fault to the event, and with the process.

SIGUSR1 cuts one process off from its destinations: each new connection to them fails. SIGUSR2 lets
it print whether it probes for all.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan, proxy_router, status_router
from fastapi_proxy_di.supervision.events import Event


def say(event: str, **fields: Any) -> None:
    """Print a line, in one piece, as other processes print there too."""
    line = {"at": time.monotonic(), "pid": os.getpid(), "event": event, **fields}
    os.write(sys.stdout.fileno(), f"{json.dumps(line)}\n".encode())


def tell(event: Event) -> None:
    """Print one event."""
    reason = getattr(event, "reason", None)
    say(type(event).__name__, destination=event.destination, reason=reason)


def break_egress(balancer: Balancer) -> None:
    """Let all new connections to destinations fail; those to the store do not."""
    ports = {int(one.url.rpartition(":")[2]) for one in balancer.destinations}
    connect = BaseSelectorEventLoop.sock_connect

    async def refuse(self: BaseSelectorEventLoop, sock: Any, address: Any) -> None:
        if address[1] in ports:
            raise OSError(101, "Network is unreachable")
        await connect(self, sock, address)

    BaseSelectorEventLoop.sock_connect = refuse  # type: ignore[method-assign,assignment]
    say("EgressBroken", destination=None)


def say_whether_it_probes(balancer: Balancer) -> None:
    """Print whether this process has the lease to probe."""
    shared = balancer._running.shared
    say("Probes", destination=None, holds=shared is not None and shared.health.probing.holds)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Print events for as long as the app runs."""
    async with proxy_lifespan(app):
        balancer, loop = Upstream("drill").of(app), asyncio.get_running_loop()
        end = balancer.subscribe(tell)
        loop.add_signal_handler(signal.SIGUSR1, break_egress, balancer)
        loop.add_signal_handler(signal.SIGUSR2, say_whether_it_probes, balancer)
        say("Started", destination=None)
        yield
        end()


def gateway() -> FastAPI:
    """Make the app."""
    app = FastAPI(lifespan=lifespan)
    app.include_router(status_router(actions=True, unguarded=True), prefix="/upstreams")
    app.include_router(proxy_router("drill"))
    return app


def main() -> None:
    """Serve until a signal ends it."""
    uvicorn.run(
        "tests.drill.gateway:gateway",
        factory=True,
        workers=int(os.environ.get("DRILL_WORKERS", "1")),
        port=int(sys.argv[1]),
        loop="asyncio",
        http="httptools",
        ws="websockets-sansio",
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
