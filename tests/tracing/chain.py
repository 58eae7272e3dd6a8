"""Starts the receiver, the origin and both gateways, and reads the traces at the receiver."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.e2e.servers import uvicorn
from tests.support.http_client import fetch
from tests.support.processes import Process, running
from tests.support.servers import dead_port

__all__ = ["Chain", "Span", "Trace", "chain"]

_SECONDS: Final = 60.0
"""How long spans may take to the receiver, on a busy machine."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span as the receiver got it; ids in hexadecimal, times in nanoseconds."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: list[str]
    start: int
    end: int
    error: bool
    attributes: dict[str, Any]

    @property
    def title(self) -> str:
        """The service, the kind in lower case, and the name."""
        return f"{self.service} {self.kind.lower()} {self.name}"


class Trace:
    """The spans of one trace, without those that FastAPI makes of its own steps.

    Args:
        spans: All spans of the trace.
        root: Id of the client's span, which no receiver gets; empty for a trace that a gateway
            has begun.
    """

    def __init__(self, spans: Iterable[Span], root: str) -> None:
        self._by_id = {span.id: span for span in spans}
        self._root = root
        shown = [one for one in self._by_id.values() if not one.name.startswith("fastapi.")]
        self.spans = sorted(shown, key=lambda span: span.start)

    def of(self, service: str, kind: str = "CLIENT") -> list[Span]:
        """Give the spans of a service, oldest first."""
        return [span for span in self.spans if (span.service, span.kind) == (service, kind)]

    def tree(self) -> list[str]:
        """Give the titles of the spans, indented by their depth, each below its parent.

        A span whose parent has not come is missing here.
        """
        return list(self._below(self._root, ""))

    def _below(self, parent: str, indent: str) -> Iterable[str]:
        for span in self.spans:
            if self._shown_parent(span) == parent:
                yield indent + span.title
                yield from self._below(span.id, indent + "  ")

    def _shown_parent(self, span: Span) -> str:
        parent = span.parent
        while (found := self._by_id.get(parent)) is not None and found not in self.spans:
            parent = found.parent
        return parent

    def outliving(self) -> list[str]:
        """Give the spans that begin before a parent in the same process, or end after it."""
        return [
            span.title
            for span in self.spans
            if (parent := self._by_id.get(span.parent)) is not None
            and parent.service == span.service
            and not parent.start <= span.start <= span.end <= parent.end
        ]


class Chain:
    """The running processes.

    Attributes:
        front: The gateway that clients reach.
        middle: The gateway behind it.
        origin: The origin behind that one.
        dead: Address of a destination that refuses connections.
    """

    def __init__(self, receiver: Process, origin: Process, dead: str) -> None:
        self.origin = origin
        self.dead = dead
        self.middle = self.front = origin
        self._receiver = receiver

    async def spans(self) -> list[Span]:
        """Give all spans that the receiver has got."""
        got = (await fetch(self._receiver.address, target="/spans")).json()
        return [Span(**span) for span in got]

    async def trace(self, carrier: Carrier, titles: Sequence[str]) -> Trace:
        """Give the trace that a client has begun, once its tree is the expected one.

        Args:
            carrier: The ids that the client has sent.
            titles: The expected tree.
        """

        def of_carrier(spans: list[Span]) -> Trace:
            return Trace([one for one in spans if one.trace == carrier.trace], carrier.span)

        return await self.until(of_carrier, titles)

    async def until(self, find: Callable[[list[Span]], Trace], titles: Sequence[str]) -> Trace:
        """Wait until the found trace has the expected tree; give it, whatever its tree is."""
        trace = find([])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                while trace.tree() != list(titles):
                    trace = find(await self.spans())
                    await asyncio.sleep(0.05)  # the receiver announces nothing
        assert trace.tree() == list(titles), [one.title for one in trace.spans]
        return trace


class Carrier:
    """The trace context of a client whose own span is exported nowhere.

    Args:
        propagator: ``w3c`` or ``b3``, for the form of the headers.
    """

    def __init__(self, propagator: str = "w3c") -> None:
        self.trace = secrets.token_hex(16)
        self.span = secrets.token_hex(8)
        w3c = propagator == "w3c"
        text = f"00-{self.trace}-{self.span}-01" if w3c else f"{self.trace}-{self.span}-1"
        self.headers = [(b"traceparent" if w3c else b"b3", text.encode())]


@contextlib.asynccontextmanager
async def chain(propagators: str = "tracecontext,baggage") -> AsyncIterator[Chain]:
    """Run the chain; each process exports its spans by FastAPI's own settings.

    Args:
        propagators: ``OTEL_PROPAGATORS`` of all processes.
    """
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(
            running(sys.executable, "-m", "tests.tracing.receiver")
        )
        receiver.port = int((await receiver.line(r"receives on (\d+)"))[1])

        def start(service: str, **settings: str) -> contextlib.AbstractAsyncContextManager[Process]:
            environment = {
                "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
                "OTEL_BSP_SCHEDULE_DELAY": "50",
                "OTEL_PROPAGATORS": propagators,
                "OTEL_SERVICE_NAME": service,
                **settings,
            }
            return uvicorn(
                f"tests.tracing.{service}:app",
                "--timeout-graceful-shutdown",
                "1",
                environment=environment,
            )

        origin = await stack.enter_async_context(start("origin"))
        running_chain = Chain(receiver, origin, f"http://127.0.0.1:{dead_port()}")
        running_chain.middle = await stack.enter_async_context(
            start("middle", ORIGIN=origin.url, DEAD=running_chain.dead)
        )
        running_chain.front = await stack.enter_async_context(
            start("front", UPSTREAM_MIDDLE_DESTINATIONS=running_chain.middle.url)
        )
        yield running_chain
