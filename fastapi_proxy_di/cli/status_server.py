"""The status page of ``serve``: a server of its own that only this machine reaches.

The gateway's own port belongs to the upstreams and to their clients, and ``serve`` has no login.
So the page listens on 127.0.0.1 only, and responds to requests for a name of this machine only,
because a page of another site can lead a browser to 127.0.0.1 by a name of that site.
"""

from __future__ import annotations

from typing import Final

import uvicorn
from fastapi import Depends, FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from fastapi_proxy_di.integration.lifespan import RUNTIME
from fastapi_proxy_di.integration.readiness import upstreams_ready
from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.integration.status_page.router import status_router

__all__ = ["HOST", "status_config"]

HOST: Final = "127.0.0.1"


def status_config(runtime: Runtime) -> uvicorn.Config:
    """Give uvicorn's configuration for the page, its data and ``/ready``.

    Args:
        runtime: The runtime of the gateway, which runs already.
    """
    app = FastAPI(openapi_url=None)
    setattr(app, RUNTIME, runtime)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    app.get("/ready", dependencies=[Depends(upstreams_ready)])(_ready)
    app.include_router(status_router(unguarded=True))
    return uvicorn.Config(
        app,
        lifespan="off",  # the gateway's upstreams run already
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )


async def _ready() -> dict[str, str]:
    return {"status": "ready"}
