"""Servers as processes of their own: uvicorn, hypercorn and nginx as a user starts them.

Owns starting them on free ports, what they print, and their end. Knows nothing of what they
serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import pytest

from tests.support.servers import free_port

__all__ = ["NGINX", "Server", "StartServer", "command", "curl", "hypercorn", "nginx", "uvicorn"]

ROOT: Final = Path(__file__).parents[2]
NGINX: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
_DEADLINE_SECONDS: Final = 30.0

StartServer = Callable[..., AbstractAsyncContextManager["Server"]]


class Server:
    """A running process that listens on 127.0.0.1.

    Attributes:
        process: The process; workers are its children.
        port: Where it listens; 0 until it has said so.
        lines: What it has printed so far.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0
        self.lines: deque[str] = deque()
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name="output of a server")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, as clients take it."""
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        """Absolute base URL without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    async def line(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait until as many lines have the pattern; gives the last match."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while True:
                found = [match for line in self.lines if (match := re.search(pattern, line))]
                if len(found) >= times:
                    return found[-1]
                assert not self._reading.done(), f"no line has {pattern!r}: {self.lines}"
                self._news.clear()
                await self._news.wait()

    async def end(self) -> int:
        """Wait until it has ended and all it printed is in ``lines``."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            await self._reading
            return await self.process.wait()

    async def stop(self) -> None:
        """Ask it to end; what is left of it and its children is killed."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await self.end()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode().rstrip("\n"))
            self._news.set()
        self._news.set()


@contextlib.asynccontextmanager
async def command(
    *words: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """Run a command until the end of the block.

    Args:
        *words: The command and its arguments.
        environment: Variables on top of the test's own.
    """
    process = await asyncio.create_subprocess_exec(
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    server = Server(process)
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def uvicorn(
    app: str, *options: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """Serve an app with ``python -m uvicorn``, ready when this yields.

    Args:
        app: Module and name of it.
        *options: Of the command line; ``--workers N`` is waited for N times.
        environment: Variables on top of the test's own.
    """
    words = (sys.executable, "-m", "uvicorn", app, "--port", "0", *options)
    async with command(*words, environment=environment) as server:
        workers = int(options[options.index("--workers") + 1]) if "--workers" in options else 1
        await server.line("Application startup complete", workers)
        server.port = int((await server.line(r"running on http://127\.0\.0\.1:(\d+)"))[1])
        if workers > 1:
            # The parent has bound the port; it is a worker that listens, after its start.
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
) -> AsyncIterator[Server]:
    """Serve an app with ``python -m hypercorn``, ready when this yields.

    Args:
        app: Module and name of it.
        *options: Of the command line.
        environment: Variables on top of the test's own.
    """
    words = (sys.executable, "-m", "hypercorn", app, "--bind", "127.0.0.1:0", *options)
    async with command(*words, environment=environment) as server:
        server.port = int((await server.line(r"Running on http://127\.0\.0\.1:(\d+)"))[1])
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
async def nginx(directory: Path, upstream: str) -> AsyncIterator[Server]:
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
    async with command(NGINX, "-p", str(directory), "-c", str(config)) as server:
        await server.line("start worker process|using the")
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
