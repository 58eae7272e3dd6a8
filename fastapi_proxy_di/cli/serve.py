"""``serve``: a gateway without code, from the environment.

It owns how uvicorn must be set up for a gateway. What the gateway does is the library's.
"""

from __future__ import annotations

import asyncio
import copy
import signal
import socket
import sys
from collections.abc import Collection, Sequence
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from fastapi_proxy_di import SettingsError, UpstreamSettings, proxy_router
from fastapi_proxy_di.cli.background_server import serving
from fastapi_proxy_di.cli.listening import listen, url
from fastapi_proxy_di.settings import load_all

_GRACE_SECONDS: Final = 10
_UVICORN_MESSAGE_BYTES: Final = 16 * 1024 * 1024


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
        KeyboardInterrupt: Ended by Ctrl-C, in order.
    """
    try:
        settings = load_all({name: name for name in names})
        listening = listen(host, port)
        if listening is None:
            return 2
        config = server_config(
            gateway(tuple(settings.values())), settings.values(), access_log=access_log
        )
        with listening, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(config, listening, names))
    except SettingsError as error:
        # Also faults that only the start finds, such as a certificate that cannot be read.
        print(error, file=sys.stderr)
        return 2
    return 0


def gateway(upstreams: Sequence[UpstreamSettings]) -> FastAPI:
    """One upstream at ``/``, several at ``/<name>``; no pages of FastAPI's own."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for upstream in upstreams:
        prefix = f"/{upstream.name}" if len(upstreams) > 1 else ""
        app.include_router(proxy_router(upstream), prefix=prefix)
    return app


def server_config(
    app: FastAPI, upstreams: Collection[UpstreamSettings], *, access_log: bool
) -> uvicorn.Config:
    """What uvicorn must be told in front of these upstreams.

    Args:
        app: The gateway; its lifespan is not run by the server.
        upstreams: Settings of all that it mounts.
        access_log: Whether each request is logged.
    """
    logging_config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    logging_config["loggers"]["fastapi_proxy_di"] = {
        "handlers": ["default"],
        "level": "INFO",
        "propagate": False,
    }
    # One line a request is enough, and ours says where it went.
    logging_config["loggers"]["fastapi_proxy_di.access"] = {
        "level": "INFO" if access_log else "WARNING"
    }
    # An upstream's own Date and Server pass only where uvicorn adds none. With one that
    # passes them and one that does not, none is better than two.
    own = all(upstream.response_server_headers == "drop" for upstream in upstreams)
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=logging_config,
        access_log=False,
        # The peer must be seen as it is: `forwarded.trusted_proxies` says whom to believe.
        proxy_headers=False,
        server_header=own,
        date_header=own,
        ws="websockets-sansio",
        ws_max_size=max(
            upstream.websocket.max_message_bytes or _UVICORN_MESSAGE_BYTES for upstream in upstreams
        ),
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


async def _serve(config: uvicorn.Config, listening: socket.socket, names: Sequence[str]) -> None:
    """Start the upstreams, then the server; end both in turn after SIGTERM or Ctrl-C."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    app = config.app
    assert isinstance(app, FastAPI)
    # Run here, not by the server, which would tell a fault of the settings as a traceback.
    async with app.router.lifespan_context(app), serving(config, listening):
        for name in names:
            mount = f"/{name}" if len(names) > 1 else "/"
            print(f"{name}: {url(listening)}{mount}", flush=True)
        await stopped.wait()
