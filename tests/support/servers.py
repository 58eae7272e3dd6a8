"""Runs an ASGI app under a real server, and finds ports that are free or refuse connections."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config as HypercornConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "Running",
    "StartupFailed",
    "blackhole",
    "dead_port",
    "free_port",
    "run_app",
    "run_app_in_thread",
    "run_hypercorn",
]

_START_SECONDS: Final = 15.0
_TURNS: Final = 20
"""Turns of the loop in which connections that are being closed are gone."""


class StartupFailed(Exception):
    """The app's lifespan failed at start; has the app's text, and its exception as cause."""


@dataclass(frozen=True, slots=True)
class Running:
    """The address of a started server."""

    host: str
    port: int

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for a client."""
        return (self.host, self.port)

    @property
    def url(self) -> str:
        """Absolute base URL without a slash at its end."""
        return f"http://{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of a client's Host header."""
        return f"{self.host}:{self.port}"


class _LifespanWatch:
    """Records the exception or report of the app's lifespan, which servers only log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.error: BaseException | None = None
        self.text = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def watched_send(message: Message) -> None:
            if message["type"].endswith(".failed"):
                self.text = message.get("message", "")
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except BaseException as error:
            self.error = error
            raise

    def failure(self) -> StartupFailed:
        failed = StartupFailed(
            str(self.error) if self.error else self.text or "server did not start"
        )
        failed.__cause__ = self.error
        return failed


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, stopped by an event instead of a 100 ms poll."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopped = asyncio.Event()
        self.ready = threading.Event()
        self.ready_async = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()
        self.ready_async.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down without uvicorn's pause of 100 ms if there is nothing to wait for."""
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        for _ in range(_TURNS):
            if not state.connections and not state.tasks:
                await self.lifespan.shutdown()
                return
            await asyncio.sleep(0)
        await super().shutdown(sockets)

    def stop(self) -> None:
        self._stopped.set()


def _bound_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    # Named, as asyncio sets TCP_NODELAY on TCP alone: without it a response in two writes waits
    # 40 ms for the client's delayed ACK.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound


def _config(app: ASGIApp, options: dict[str, Any]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        **{
            "lifespan": "on",
            "loop": "asyncio",
            # uvicorn's older "websockets" implementation warns on import.
            "ws": "websockets-sansio",
            "log_config": None,
            "access_log": False,
            # No proxy in front: the peer is the client.
            "proxy_headers": False,
            "timeout_graceful_shutdown": 1,
            **options,
        },
    )


@contextlib.asynccontextmanager
async def run_app(app: ASGIApp, **uvicorn_config: Any) -> AsyncIterator[Running]:
    """Serve an app with uvicorn in this event loop.

    Args:
        app: The ASGI app; its lifespan runs.
        **uvicorn_config: Options of ``uvicorn.Config``.

    Yields:
        Where it listens.

    Raises:
        StartupFailed: The app's lifespan failed.
    """
    watch = _LifespanWatch(app)
    bound = _bound_socket()
    server = _Server(_config(watch, uvicorn_config))

    async def serve() -> None:
        # startup() leaves by sys.exit, which asyncio would pass on to the whole loop.
        with contextlib.suppress(SystemExit):
            await server._serve([bound])

    task = asyncio.create_task(serve(), name="test server")
    ready = asyncio.create_task(server.ready_async.wait(), name="test server ready")
    try:
        await asyncio.wait(
            {task, ready}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if not server.started:
            raise watch.failure()
        yield Running(*bound.getsockname())
    finally:
        ready.cancel()
        server.stop()
        await task
        bound.close()


@contextlib.asynccontextmanager
async def run_app_in_thread(app: ASGIApp, **uvicorn_config: Any) -> AsyncIterator[Running]:
    """Serve an app with uvicorn in its own thread and loop, while the test blocks its loop.

    Args:
        app: The ASGI app; its lifespan runs.
        **uvicorn_config: Options of ``uvicorn.Config``.

    Yields:
        Where it listens.

    Raises:
        StartupFailed: The app's lifespan failed.
    """
    watch = _LifespanWatch(app)
    bound = _bound_socket()
    started: list[tuple[_Server, asyncio.AbstractEventLoop]] = []
    ended = threading.Event()
    ready = threading.Event()

    async def serve() -> None:
        server = _Server(_config(watch, uvicorn_config))
        server.ready = ready
        started.append((server, asyncio.get_running_loop()))
        with contextlib.suppress(SystemExit):
            await server._serve([bound])

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            ended.set()
            ready.set()

    thread = threading.Thread(target=run, name="test server", daemon=True)
    thread.start()
    try:
        await asyncio.to_thread(ready.wait, _START_SECONDS)
        if ended.is_set() or not ready.is_set():
            raise watch.failure()
        yield Running(*bound.getsockname())
    finally:
        if started and not ended.is_set():
            server, loop = started[0]
            with contextlib.suppress(RuntimeError):  # the loop ended in between
                loop.call_soon_threadsafe(server.stop)
        await asyncio.to_thread(thread.join, _START_SECONDS)
        bound.close()


@contextlib.asynccontextmanager
async def run_hypercorn(app: ASGIApp, **options: Any) -> AsyncIterator[Running]:
    """Serve an app with hypercorn in this event loop.

    Args:
        app: The ASGI app; its lifespan runs.
        **options: Attributes of ``hypercorn.Config``.

    Yields:
        Where it listens.
    """
    bound = _bound_socket()
    bound.listen()
    bound.setblocking(False)
    config = HypercornConfig()
    # hypercorn takes the descriptor over and closes it.
    address = bound.getsockname()
    config.bind = [f"fd://{bound.detach()}"]
    config.errorlog = None
    config.graceful_timeout = 1.0
    for name, value in options.items():
        setattr(config, name, value)
    stop = asyncio.Event()
    watch = _LifespanWatch(app)
    task = asyncio.create_task(
        hypercorn_serve(watch, config, shutdown_trigger=stop.wait),  # type: ignore[arg-type]
        name="test hypercorn",
    )
    try:
        yield Running(*address)
    finally:
        stop.set()
        await task


# Below the ports that systems give to outgoing connections (Linux: from 32768 on): such a port
# would be taken by another test before a server binds it.
_PORTS: Final = range(20_000, 32_000)
_random: Final = random.SystemRandom()  # another order in each process
_given_ports: Final[deque[int]] = deque(maxlen=64)


def free_port() -> int:
    """Give a port that nothing listens on now, another one at each call."""
    while True:
        port = _random.choice(_PORTS)
        if port in _given_ports:
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            _given_ports.append(port)
            return port


dead_port = free_port
"""A port that refuses connections: bound once and closed again."""


@contextlib.contextmanager
def blackhole(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Give a port on which a connect neither succeeds nor fails.

    The listener's queue is filled, so the kernel drops every further SYN.

    Args:
        host: The address, IPv4 or IPv6.
        port: The port, 0 for any that is free.

    Yields:
        The port.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_bound_socket(host, port))
        listener.listen(0)
        filled = False
        while not filled:
            filler = stack.enter_context(socket.socket(listener.family))
            filler.settimeout(0.2)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                filled = True
        yield listener.getsockname()[1]
