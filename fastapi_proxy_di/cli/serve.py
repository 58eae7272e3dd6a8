"""``serve``: runs a gateway by the settings of the environment, without code.

The file configures uvicorn for a gateway; `gateway` has the application.
"""

from __future__ import annotations

import asyncio
import copy
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG

from fastapi_proxy_di.cli.arguments import Arguments
from fastapi_proxy_di.cli.background_server import serving
from fastapi_proxy_di.cli.env_files import add_other_variables, mention_with_files
from fastapi_proxy_di.cli.gateway import WorkerGateway, gateway, mount_of
from fastapi_proxy_di.cli.listening import listen, url
from fastapi_proxy_di.cli.server_tls import ServerTls, server_tls
from fastapi_proxy_di.cli.status_server import HOST, status_config
from fastapi_proxy_di.cli.workers import check_settings, run_workers
from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.app import ProxyApp, proxy_app, running_together
from fastapi_proxy_di.integration.lifespan import RUNTIME
from fastapi_proxy_di.integration.shadowed import MountPaths
from fastapi_proxy_di.settings import UpstreamSettings, load_all

_SHUTDOWN_SECONDS: Final = 10
_WORKER_SECONDS: Final = 30
"""A new worker may take so long to start, with the first probes; one that does not react for so
long is replaced."""
_NO_LIMIT: Final = sys.maxsize
"""Stands for no limit on messages: uvicorn has no other way to say so."""


def run(arguments: Arguments) -> int:
    """Serve until a signal comes.

    Args:
        arguments: The command line.

    Returns:
        0 after SIGTERM; 2 if the settings are wrong or the port is taken.

    Raises:
        KeyboardInterrupt: Ctrl-C; the gateway has shut down in order.
    """
    try:
        add_other_variables(arguments.env_files, os.environ)
        tls = server_tls(arguments.ssl_certfile, arguments.ssl_keyfile)
        mentions = {name: mention_with_files(name, arguments.env_files) for name in arguments.names}
        settings = load_all(mentions)
        port = 8000 if arguments.port is None else arguments.port
        with ExitStack() as sockets:
            listening = listen(arguments.host, port)
            if listening is None:
                return 2
            sockets.enter_context(listening)
            if arguments.workers > 1:
                return _serve_by_workers(arguments, settings, tls, listening)
            status = None if arguments.status is None else listen(HOST, arguments.status)
            if arguments.status is not None and status is None:
                return 2
            if status is not None:
                sockets.enter_context(status)
            # Not with the settings, which a reload reads anew.
            proxies = {name: proxy_app(mention) for name, mention in mentions.items()}
            config = server_config(
                gateway(proxies), settings.values(), access_log=arguments.access_log, tls=tls
            )
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(_serve(config, listening, proxies, status))
    except SettingsError as error:
        # Also faults that only the start finds, such as a certificate that cannot be read.
        print(error, file=sys.stderr)
        return 2
    return 0


def server_config(
    app: ASGIApp | WorkerGateway,
    upstreams: Collection[UpstreamSettings],
    *,
    access_log: bool,
    tls: ServerTls | None = None,
    workers: int = 1,
) -> uvicorn.Config:
    """Give uvicorn's configuration for a gateway to these upstreams.

    Args:
        app: The gateway, whose lifespan is not run by the server; for several workers what makes
            it in each of them, with its lifespan.
        upstreams: Settings of the mounted upstreams.
        access_log: Whether each request is logged.
        tls: The certificate, ``None`` for plain HTTP.
        workers: Number of worker processes.
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
        factory=isinstance(app, WorkerGateway),
        workers=workers,
        lifespan="on" if isinstance(app, WorkerGateway) else "off",
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
        timeout_worker_healthcheck=_WORKER_SECONDS,
        ssl_certfile=None if tls is None else tls.certfile,
        ssl_keyfile=None if tls is None else tls.keyfile,
        ssl_keyfile_password=None if tls is None else tls.password,
    )


def _serve_by_workers(
    arguments: Arguments,
    settings: Mapping[str, UpstreamSettings],
    tls: ServerTls | None,
    listening: socket.socket,
) -> int:
    """Serve in several processes; the addresses are printed before the first one responds."""
    check_settings(settings)
    config = server_config(
        WorkerGateway(arguments.names, tuple(arguments.env_files)),
        settings.values(),
        access_log=arguments.access_log,
        tls=tls,
        workers=arguments.workers,
    )
    _print_addresses(arguments.names, url(listening, tls=tls is not None))
    return run_workers(config, listening)


async def _serve(
    config: uvicorn.Config,
    listening: socket.socket,
    proxies: Mapping[str, ProxyApp],
    status: socket.socket | None,
) -> None:
    """Start the upstreams, then the servers; end all in turn after SIGTERM or Ctrl-C."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    # Started here and not by the server, which would log a settings fault as a traceback.
    async with running_together(proxies.values()), AsyncExitStack() as servers:
        if status is not None:
            runtime = getattr(next(iter(proxies.values())), RUNTIME)
            runtime.mounts = [_mount(name, len(proxies)) for name in proxies]
            await servers.enter_async_context(serving(status_config(runtime), status))
        await servers.enter_async_context(serving(config, listening))
        _print_addresses(tuple(proxies), url(listening, tls=config.is_ssl))
        if status is not None:
            print(f"status page: {url(status)}/", flush=True)
        await stopped.wait()


def _mount(name: str, count: int) -> MountPaths:
    return MountPaths(name, mount_of(name, count), None, ("HTTP", "WebSocket"), (), ())


def _print_addresses(names: Sequence[str], base: str) -> None:
    for name in names:
        print(f"{name}: {base}{mount_of(name, len(names))}", flush=True)
