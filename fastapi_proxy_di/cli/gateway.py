"""The ASGI application of ``serve``: one upstream at ``/``, several at ``/<name>``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_proxy_di.cli.env_files import mention_with_files
from fastapi_proxy_di.integration.app import ProxyApp, proxy_app, running_together
from fastapi_proxy_di.integration.broken_responses import BrokenResponses
from fastapi_proxy_di.integration.problems import problem, send_response

__all__ = ["WorkerGateway", "gateway", "mount_of"]


def gateway(proxies: Mapping[str, ProxyApp]) -> ASGIApp:
    """Mount one upstream at ``/``, several at ``/<name>``; their lifespan is the caller's."""
    if len(proxies) == 1:
        return BrokenResponses(next(iter(proxies.values())))
    return BrokenResponses(_ByName(proxies))


def mount_of(name: str, count: int) -> str:
    """Give the path of an upstream that is one of ``count``."""
    return f"/{name}" if count > 1 else "/"


class _ByName:
    """Forwards each request to the upstream that the first segment of its path names.

    A ``Mount`` does not match its own path without a slash, nor paths with line ends.
    """

    def __init__(self, proxies: Mapping[str, ProxyApp]) -> None:
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"][1:].partition("/")[0]
        proxy = self._proxies.get(name)
        if proxy is None:
            await send_response(problem(404), scope, receive, send)
        else:
            scope["root_path"] = f"/{name}"
            await proxy(scope, receive, send)


@dataclass(frozen=True, slots=True)
class WorkerGateway:
    """Makes the application in a worker process, which gets this object by pickle.

    Attributes:
        names: The upstreams.
        env_files: Files with their variables.
    """

    names: tuple[str, ...]
    env_files: tuple[Path, ...] = ()

    def __call__(self) -> ASGIApp:
        """Make an application that starts and closes its upstreams by the server's lifespan."""
        files = self.env_files
        proxies = {name: proxy_app(mention_with_files(name, files)) for name in self.names}
        inner = gateway(proxies)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await _run(proxies, receive, send)
            else:
                await inner(scope, receive, send)

        return app


async def _run(proxies: Mapping[str, ProxyApp], receive: Receive, send: Send) -> None:
    """Run the upstreams between the server's startup and shutdown messages.

    Uvicorn logs a failure, and ends a worker that cannot start with a status of its own. A worker
    that cannot close ends with 0: uvicorn gives it no other status.
    """
    await receive()
    started = False
    try:
        async with running_together(proxies.values()):
            await send({"type": "lifespan.startup.complete"})
            started = True
            await receive()
    except Exception as error:
        kind = "shutdown" if started else "startup"
        await send({"type": f"lifespan.{kind}.failed", "message": str(error)})
        raise
    await send({"type": "lifespan.shutdown.complete"})
