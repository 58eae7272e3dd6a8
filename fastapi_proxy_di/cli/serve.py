"""``serve``: runs a gateway by the settings of the environment, without code.

The file configures uvicorn for a gateway; `proxy_app` does the forwarding.
"""

from __future__ import annotations

import asyncio
import copy
import signal
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import LOGGING_CONFIG

from fastapi_proxy_di import ProxyApp, SettingsError, UpstreamSettings, proxy_app
from fastapi_proxy_di.cli.background_server import serving
from fastapi_proxy_di.cli.listening import listen, url
from fastapi_proxy_di.integration.app import running_together
from fastapi_proxy_di.integration.broken_responses import BrokenResponses
from fastapi_proxy_di.integration.problems import problem, send_response
from fastapi_proxy_di.settings import load_all

_SHUTDOWN_SECONDS: Final = 10
_NO_LIMIT: Final = sys.maxsize
"""Stands for no limit on messages: uvicorn has no other way to say so."""


def run(names: Sequence[str], host: str, port: int, *, access_log: bool) -> int:
    """Serve until a signal comes.

    Args:
        names: The upstreams.
        host: Address to listen on.
        port: 0 takes any free one.
        access_log: Whether each request is logged.

    Returns:
        0 after SIGTERM; 2 if the settings are wrong or the port is taken.

    Raises:
        KeyboardInterrupt: Ctrl-C; the gateway has shut down in order.
    """
    try:
        settings = load_all({name: name for name in names})
        listening = listen(host, port)
        if listening is None:
            return 2
        proxies = {name: proxy_app(one) for name, one in settings.items()}
        app = BrokenResponses(gateway(proxies))
        config = server_config(app, settings.values(), access_log=access_log)
        with listening, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(config, listening, proxies))
    except SettingsError as error:
        # Also faults that only the start finds, such as a certificate that cannot be read.
        print(error, file=sys.stderr)
        return 2
    return 0


def gateway(proxies: Mapping[str, ProxyApp]) -> ASGIApp:
    """Mount one upstream at ``/``, several at ``/<name>``."""
    if len(proxies) == 1:
        return next(iter(proxies.values()))
    return _ByName(proxies)


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


def server_config(
    app: ASGIApp, upstreams: Collection[UpstreamSettings], *, access_log: bool
) -> uvicorn.Config:
    """Give uvicorn's configuration for a gateway to these upstreams.

    Args:
        app: The gateway; its lifespan is not run by the server.
        upstreams: Settings of the mounted upstreams.
        access_log: Whether each request is logged.
    """
    logging_config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    logging_config["loggers"]["fastapi_proxy_di"] = {
        "handlers": ["default"],
        "level": "INFO",
        "propagate": False,
    }
    # Our access log names the destination, so uvicorn's is off below.
    logging_config["loggers"]["fastapi_proxy_di.access"] = {
        "level": "INFO" if access_log else "WARNING"
    }
    # Date and Server of an upstream are forwarded only where uvicorn adds none. If one
    # upstream forwards them, uvicorn adds none for any: no header is better than two.
    own = all(upstream.response_server_headers == "drop" for upstream in upstreams)
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=logging_config,
        access_log=False,
        # Forwarding headers are evaluated by the library alone (`forwarded.trusted_proxies`).
        proxy_headers=False,
        server_header=own,
        date_header=own,
        ws="websockets-sansio",
        # Each tunnel has the limit of its upstream as well.
        ws_max_size=max(
            upstream.websocket.max_message_bytes or _NO_LIMIT for upstream in upstreams
        ),
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


async def _serve(
    config: uvicorn.Config, listening: socket.socket, proxies: Mapping[str, ProxyApp]
) -> None:
    """Start the upstreams, then the server; end both in turn after SIGTERM or Ctrl-C."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    # Started here and not by the server, which would log a settings fault as a traceback.
    async with running_together(proxies.values()), serving(config, listening):
        for name in proxies:
            mount = f"/{name}" if len(proxies) > 1 else "/"
            print(f"{name}: {url(listening)}{mount}", flush=True)
        await stopped.wait()
