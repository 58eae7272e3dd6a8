"""Imports, starts and shuts down an in-process app that is a destination.

The lifespan of the app runs within the lifespan of the upstream, once for each upstream that
names the app. Requests to the app are in ``exchange`` and ``websocket``.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import Context
from typing import Any, Final

from fastapi_proxy_di.wire.quoting import quoted

_logger = logging.getLogger("fastapi_proxy_di.asgi")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_RAISE_SECONDS: Final = 1.0
"""How long an app that has reported a failure may take to raise its cause."""


class AppStartFailed(RuntimeError):
    """The lifespan of an in-process app failed at its start."""


def load_app(path: str) -> AsgiApp:
    """Import the app of an ``asgi://`` address.

    Args:
        path: ``package.module:app``; dots after the colon lead to attributes.

    Raises:
        ValueError: The app cannot be imported; the text names the app and the reason.
    """
    module_name, _, attributes = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(
            f"destinations: asgi://{path}: importing {module_name} failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ValueError(
                f"destinations: asgi://{path}: {module_name} has no attribute {attributes!r}"
            )
        found = getattr(found, attribute)
    if not callable(found):
        message = f"destinations: asgi://{path}: {attributes!r} is not an ASGI app"
        raise ValueError(message)  # noqa: TRY004 - a fault of the settings like any other
    app: AsgiApp = found
    return app


class InnerApp:
    """One in-process app, shared by the transports of one upstream.

    Attributes:
        app: The app.
        name: ``package.module:app``.
        upstream: Name of the upstream, for the log.
        state: The lifespan state, which its requests get.
        started: Whether its lifespan has started.
        closed: Whether its last transport was closed.

    Args:
        name: ``package.module:app``.
        app: The app; ``None`` imports it by ``name``, which otherwise only appears in texts.
        upstream: Name of the upstream.

    Raises:
        ValueError: The app cannot be imported.
    """

    def __init__(self, name: str, app: AsgiApp | None = None, *, upstream: str = "") -> None:
        self.app: AsgiApp = load_app(name) if app is None else app
        self.name = name
        self.upstream = upstream
        self.state: dict[str, Any] = {}
        self.started: bool = False
        self.closed: bool = False
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._starting: asyncio.Task[None] | None = None
        self._lifespan: asyncio.Task[None] | None = None
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._startup: asyncio.Future[str | None] = self._loop.create_future()
        self._shutdown: asyncio.Future[str | None] = self._loop.create_future()
        self._raised: Exception | None = None

    def use(self) -> InnerApp:
        """Count one more transport to the app; ``release`` counts one less."""
        self._users += 1
        return self

    def task(self, run: Callable[[], Any], what: str) -> asyncio.Task[None]:
        """Run a coroutine of the app in a new task with an empty context.

        As behind a server, the app's calls do not see the context variables of the proxied
        request; nor does its lifespan see those of a request that has added the destination.
        """
        return self._loop.create_task(
            run(), name=f"{what} of asgi://{self.name}", context=Context()
        )

    def log(self, level: int, what: str, error: Exception | None = None) -> None:
        """Log what the app did.

        Args:
            level: Level of the record.
            what: The text after the app's name.
            error: The exception whose traceback is logged.
        """
        _logger.log(
            level,
            "%s: asgi://%s %s",
            self.upstream,
            self.name,
            quoted(what),
            exc_info=error,
            extra={"upstream": self.upstream, "destination": f"asgi://{self.name}"},
        )

    async def start(self) -> None:
        """Run the start of the app's lifespan, unless it has run already.

        Raises:
            AppStartFailed: The startup of the app failed.
        """
        if self.started:
            return
        if self._starting is None:
            self._starting = self.task(self._start, "start")
        await asyncio.shield(self._starting)

    async def release(self) -> None:
        """Count one transport less, and shut the app down after the last one.

        Raises:
            RuntimeError: The shutdown of the app failed.
        """
        self._users -= 1
        lifespan = self._lifespan
        self.closed = self._users == 0
        if not self.closed or lifespan is None:
            return
        failure: str | None = None
        if self.started:
            self._messages.put_nowait({"type": "lifespan.shutdown"})
            failure = await self._shutdown
            self.started = False
        lifespan.cancel()
        await asyncio.wait((lifespan,))
        if failure is not None:
            raise RuntimeError(f"the shutdown of asgi://{self.name} failed: {failure}")

    async def _start(self) -> None:
        self._messages.put_nowait({"type": "lifespan.startup"})
        lifespan = self._lifespan = self.task(self._run, "lifespan")
        failure = await self._startup
        if failure is None:
            self.started = True
            return
        await asyncio.wait((lifespan,), timeout=_RAISE_SECONDS)
        error = self._raised
        text = failure if error is None else f"{type(error).__name__}: {error}"
        raise AppStartFailed(f"asgi://{self.name} failed to start: {text}") from error

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self.app(scope, self._messages.get, self._send)
        except Exception as error:  # noqa: BLE001  # whatever the app raises
            self._raised = error
            if not self._startup.done():
                # ASGI: an app without a lifespan raises before it sends any message.
                self.log(logging.DEBUG, f"has no lifespan: {error!r}")
            elif self._startup.result() is None and not self._shutdown.done():
                self.log(logging.ERROR, "failed in its lifespan", error)
        finally:
            for waited in (self._startup, self._shutdown):
                if not waited.done():
                    waited.set_result(None)

    async def _send(self, message: Message) -> None:
        phase, _, result = message["type"].removeprefix("lifespan.").partition(".")
        waited = self._startup if phase == "startup" else self._shutdown
        if not waited.done():
            failed = result == "failed"
            waited.set_result(message.get("message", "") if failed else None)
