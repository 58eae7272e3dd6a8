"""Runs uvicorn, hypercorn, granian, nginx and Prometheus as processes, as users start them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support.processes import Process, running
from tests.support.servers import free_port

__all__ = ["NGINX", "curl", "granian", "hypercorn", "nginx", "prometheus", "uvicorn"]

NGINX: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
_DEADLINE_SECONDS: Final = 100.0  # for machines that stall


@contextlib.asynccontextmanager
async def uvicorn(
    app: str, *options: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """Serve an app with ``python -m uvicorn``, ready when this yields.

    Args:
        app: Module and name of it.
        *options: Of the command line; ``--workers N`` is waited for N times.
        environment: Variables on top of the test's own.
    """
    words = (sys.executable, "-m", "uvicorn", app, "--port", "0", *options)
    workers = int(options[options.index("--workers") + 1]) if "--workers" in options else 1
    async with running(*words, environment=environment) as server:
        server.port = int((await server.line(r"running on http://127\.0\.0\.1:(\d+)"))[1])
        if workers > 1:
            # The parent has bound the port; it is a worker that listens, after its start.
            for _ in range(workers):
                await server.line("Application startup complete")
            await _accepts(server.address)
        yield server


async def _accepts(address: tuple[str, int]) -> None:
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection(*address)
                writer.close()
                return
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def hypercorn(
    app: str, *options: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """Serve an app with ``python -m hypercorn``, ready when this yields.

    Args:
        app: Module and name of it.
        *options: Of the command line.
        environment: Variables on top of the test's own.
    """
    words = (sys.executable, "-m", "hypercorn", app, "--bind", "127.0.0.1:0", *options)
    async with running(*words, environment=environment) as server:
        server.port = int((await server.line(r"Running on http://127\.0\.0\.1:(\d+)"))[1])
        yield server


@contextlib.asynccontextmanager
async def granian(
    app: str, *options: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """Serve an app with ``python -m granian``, ready when this yields.

    Args:
        app: Module and name of it.
        *options: Of the command line.
        environment: Variables on top of the test's own.
    """
    port = free_port()
    words = ("-m", "granian", "--interface", "asgi", "--port", str(port), *options, app)
    async with running(sys.executable, *words, environment=environment) as server:
        await server.line("Started worker")
        server.port = port
        # The parent says so; it is the worker that listens, after the app's start.
        await _accepts(server.address)
        yield server


_NGINX_CONFIG: Final = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    log_format targets "$request_method $request_uri";
    access_log {directory}/access.log targets;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 0;
    map $http_upgrade $connection_field {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port};
        location = /file {{ alias {directory}/file; }}
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_set_header Connection $connection_field;
            proxy_set_header Upgrade $http_upgrade;
        }}
    }}
}}
"""


@contextlib.asynccontextmanager
async def nginx(directory: Path, upstream: str) -> AsyncIterator[Process]:
    """Run nginx as the current user: ``/file`` is its own, the rest goes to an upstream.

    Args:
        directory: For its configuration, its temporary files and ``access.log``.
        upstream: Address of the upstream.
    """
    if NGINX is None:  # pragma: no cover
        pytest.skip("nginx is not installed; on Debian and Ubuntu: apt-get install nginx-light")
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(_NGINX_CONFIG.format(directory=directory, port=port, upstream=upstream))
    (directory / "file").write_bytes(b"a file of nginx\n")
    async with running(NGINX, "-p", str(directory), "-c", str(config)) as server:
        await server.line("start worker process|using the")
        server.port = port
        yield server


_PROMETHEUS_CONFIG: Final = """\
global:
  scrape_interval: 500ms
  scrape_timeout: 500ms
scrape_configs:
  - job_name: gateway
    static_configs: [{{targets: ["{target}"]}}]
"""


@contextlib.asynccontextmanager
async def prometheus(directory: Path, target: str) -> AsyncIterator[Process]:
    """Run a Prometheus that scrapes a server twice a second.

    Args:
        directory: For its configuration and its data.
        target: Host and port of the server, whose metrics are at ``/metrics``.
    """
    path = shutil.which("prometheus")
    if path is None:  # pragma: no cover
        pytest.skip("Prometheus is not installed; on Debian and Ubuntu: apt-get install prometheus")
    port = free_port()
    config = directory / "prometheus.yml"
    config.write_text(_PROMETHEUS_CONFIG.format(target=target))
    words = (
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    async with running(path, *words, folder=directory) as server:
        await server.line("Server is ready to receive web requests")
        server.port = port
        yield server


async def curl(*words: str) -> asyncio.subprocess.Process:
    """Start curl with these arguments, without a configuration, silent but for errors."""
    path = shutil.which("curl")
    if path is None:  # pragma: no cover
        pytest.skip("curl is not installed")
    return await asyncio.create_subprocess_exec(
        path, "-q", "-sS", *words, stdout=asyncio.subprocess.PIPE
    )
