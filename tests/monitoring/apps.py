"""One app with ordinary and proxied mounts, and the same requests to each.

The tests of all monitoring tools compare both: a tool must show the same for a proxied mount as for
an ordinary router with a path convertor that is mounted the same way.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Response
from starlette.requests import HTTPConnection

from fastapi_proxy_di import proxy_router
from tests.support.gateways import billing
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.servers import run_app

__all__ = ["MOUNTS", "PATHS", "Asked", "ask", "asked_of_both", "mount_both"]

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
MOUNTS: Final = {
    "/{name}": "/{name}",
    "/v1/{name}": "/v1/{name}",
    "/tenants/{{tenant}}/{name}": "/tenants/acme/{name}",
}
"""Path of each mount as it is declared, and as clients write it."""
PATHS: Final = (
    ("GET", "/a"),
    ("GET", "/a/b?q=1"),
    ("GET", "/a%2Fb%20c;d"),
    ("GET", "//a//"),
    ("GET", "/"),
    ("GET", "/boom"),
    ("POST", "/a"),
    ("DELETE", "/a/b"),
)
BARE: Final = (("GET", ""), ("GET", "?q=1"), ("POST", ""))
"""The mount itself; an ordinary router with a path convertor has no route for it."""
_FORM: Final = b"a=1&b=%20"
_FORM_HEADERS: Final = [(b"content-type", b"application/x-www-form-urlencoded")]


class Boom(Exception):
    """The exception of the guard of each mount for ``/boom``."""


async def _fail_at_boom(connection: HTTPConnection) -> None:
    if connection.url.path.endswith("/boom"):
        raise Boom


def mount_both(app: FastAPI, origin: str) -> None:
    """Mount an ordinary router as ``ordinary`` and a proxied one as ``billing``, in each way."""
    upstream = billing(origin)

    def ordinary() -> APIRouter:
        router = APIRouter()

        @router.api_route("/{path:path}", methods=list(METHODS))
        async def rest(path: str) -> Response:
            return Response(b"constant", 203)

        return router

    def proxied() -> APIRouter:
        return proxy_router(upstream)

    makers: dict[str, Callable[[], APIRouter]] = {"ordinary": ordinary, "billing": proxied}
    guard = [Depends(_fail_at_boom)]
    for name, make in makers.items():
        app.include_router(make(), prefix=f"/{name}", dependencies=guard)
        parent = APIRouter(prefix="/v1")
        parent.include_router(make(), prefix=f"/{name}", dependencies=guard)
        app.include_router(parent)
        app.include_router(make(), prefix=f"/tenants/{{tenant}}/{name}", dependencies=guard)


@dataclass(frozen=True, slots=True)
class Asked:
    """The output of a tool, by mount.

    Attributes:
        ordinary: For the requests to the ordinary router, in order, with ``billing`` in the
            place of ``ordinary``.
        proxied: For the same requests to the proxied one.
        bare: For requests to the proxied mount itself.
    """

    ordinary: list[Any] = field(default_factory=list)
    proxied: list[Any] = field(default_factory=list)
    bare: list[Any] = field(default_factory=list)


async def ask(
    address: tuple[str, int], name: str, take: Callable[[], Any], paths: Sequence[tuple[str, str]]
) -> list[Any]:
    """Send each request, and collect the tool's output for it."""
    shown = []
    for method, path in paths:
        body, headers = (_FORM, _FORM_HEADERS) if method == "POST" else (None, [])
        await fetch(address, method, name + path, headers, body)
        shown.append(take())
    return shown


def _renamed(shown: Any) -> Any:
    if isinstance(shown, str):
        return shown.replace("ordinary", "billing")
    return type(shown)(map(_renamed, shown)) if isinstance(shown, list | tuple) else shown


@asynccontextmanager
async def asked_of_both(
    app: FastAPI, take: Callable[[], Any], **server: Any
) -> AsyncIterator[dict[str, Asked]]:
    """Serve the app with both kinds of mounts, and send the same requests to each.

    Args:
        app: With the tool in it.
        take: Gives what the tool has shown since the last call, and forgets it.
        **server: Options of ``uvicorn.Config``.

    Yields:
        What was shown for each mount, as declared with ``billing`` for its name.
    """
    reply = response_bytes(203, b"constant")
    async with ScriptedOrigin(always(reply)) as origin:
        mount_both(app, origin.url)
        async with run_app(app, **server) as running:
            assert not take(), "something was recorded at start, before any request"
            seen = {}
            for declared, written in MOUNTS.items():
                mine = written.format(name="billing")
                seen[declared.format(name="billing")] = Asked(
                    _renamed(
                        await ask(running.address, written.format(name="ordinary"), take, PATHS)
                    ),
                    await ask(running.address, mine, take, PATHS),
                    await ask(running.address, mine, take, BARE),
                )
        # Some tools read bodies before the route does.
        assert {one.body for one in origin.requests if one.method == b"POST"} == {_FORM}
        yield seen
