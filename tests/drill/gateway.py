"""The gateway of the drill: a real process whose settings come from the environment.

``python -m tests.drill.gateway PORT``. Each event of the upstream becomes a line of JSON on
the standard output, with the machine's monotonic seconds, so that the drill can compute the time
from a fault to the event.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from fastapi_proxy_di import Upstream, proxy_lifespan, proxy_router
from fastapi_proxy_di.supervision.events import Event


def tell(event: Event) -> None:
    """Print one event."""
    line = {"at": time.monotonic(), "event": type(event).__name__, "destination": event.destination}
    print(json.dumps(line), flush=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Print events for as long as the app runs."""
    async with proxy_lifespan(app):
        end = Upstream("drill").of(app).subscribe(tell)
        yield
        end()


def main() -> None:
    """Serve until a signal ends it."""
    app = FastAPI(lifespan=lifespan)
    app.include_router(proxy_router("drill"))
    uvicorn.run(
        app,
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
