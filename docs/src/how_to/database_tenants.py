import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.requests import HTTPConnection

from fastapi_proxy_di import Balancer, UpstreamSettings, proxy_lifespan, proxy_upstream

DATABASE = os.environ.get("TENANTS_DATABASE", "tenants.db")
SECONDS = 5  # between two looks at the table
logger = logging.getLogger("tenants")


class Tenant(UpstreamSettings, name="tenant"):
    """Settings of all tenants; variables such as UPSTREAM_TENANT_TIMEOUTS__TOTAL apply to each."""


def read_rows() -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(DATABASE)) as database:
        return dict(database.execute("SELECT name, url FROM tenants"))


class Tenants:
    """Runs an upstream for each row of the table."""

    def __init__(self, app: FastAPI) -> None:
        self.balancers: dict[str, Balancer] = {}
        self._app = app
        self._urls: dict[str, str] = {}
        self._ends: dict[str, contextlib.AsyncExitStack] = {}
        self._lock = asyncio.Lock()

    async def follow(self) -> None:
        """Start, change and end upstreams until they are as the table says."""
        async with self._lock:
            rows = await asyncio.to_thread(read_rows)
            gone = self.balancers.keys() - rows.keys()
            changed = [name for name, url in rows.items() if self._urls.get(name) != url]
            await asyncio.gather(*map(self._end, gone))
            await asyncio.gather(*(self._set(name, rows[name]) for name in changed))

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            try:
                await self.follow()
            except sqlite3.Error:
                logger.exception("the tenants stay as they are")

    async def _set(self, name: str, url: str) -> None:
        try:
            if name in self.balancers:
                self.balancers[name].replace_destinations([url])
            else:
                settings = Tenant(destinations=[url]).named(name)
                end = contextlib.AsyncExitStack()
                running = proxy_upstream(self._app, settings, drain=5)
                self.balancers[name] = await end.enter_async_context(running)
                self._ends[name] = end
            self._urls[name] = url
        except ValueError as error:  # faults of one row stop no other tenant
            logger.warning("tenant %r: %s", name, error)

    async def _end(self, name: str) -> None:
        del self.balancers[name], self._urls[name]
        await self._ends.pop(name).aclose()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with proxy_lifespan(app), asyncio.TaskGroup() as group:
        app.state.tenants = tenants = Tenants(app)
        await tenants.follow()
        watching = group.create_task(tenants.watch())
        yield
        watching.cancel()


app = FastAPI(lifespan=lifespan)


async def balancer_of(tenant: str, connection: HTTPConnection) -> Balancer:
    tenants: Tenants = connection.app.state.tenants
    if tenant not in tenants.balancers:  # or if this user may not use it
        raise HTTPException(404)
    return tenants.balancers[tenant]


TenantBalancer = Annotated[Balancer, Depends(balancer_of)]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@app.api_route("/{tenant}/{path:path}", methods=METHODS)
async def forward(request: Request, tenant: str, balancer: TenantBalancer) -> Response:
    return await balancer.forward(request, mount=f"/{tenant}")


@app.websocket("/{tenant}/{path:path}")
async def tunnel(websocket: WebSocket, tenant: str, balancer: TenantBalancer) -> None:
    await balancer.forward_websocket(websocket, mount=f"/{tenant}")
