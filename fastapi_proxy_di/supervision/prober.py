"""Active health: sends the probes of one pool and gives the results to the supervisor.

Each destination has a task of its own, so that a slow probe delays no other. Its context is empty,
because a request may start it by an action, and end before it. The prober decides
nothing: how many results in a row change a destination's health is up to ``health.thresholds``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from contextvars import Context
from random import Random
from time import monotonic
from typing import Final, Protocol

from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import HealthSettings
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transport.protocol import OutgoingRequest, Transport, TransportExchange
from fastapi_proxy_di.wire.addresses import Address
from fastapi_proxy_di.wire.targets import join_target

_logger = logging.getLogger("fastapi_proxy_di.health")

_BODY_LIMIT_BYTES: Final = 65536
"""How much of a probe's response body is searched for ``health.body_match``."""

_HEAD_REFUSED: Final = frozenset({405, 501})
_USER_AGENT: Final = (b"user-agent", b"fastapi-proxy-di-probe")


class ProbeSharing(Protocol):
    """Says which probes are this process's, where several processes share the results."""

    def probes(self, destination: Destination) -> bool:
        """Tell whether a probe of ``destination`` that is due now is to be sent."""

    def probed(self, destination: Destination, reason: str) -> None:
        """Take that a result was applied; ``reason`` is why the probe failed, or ``""``."""

    def reconfigured(self) -> None:
        """Take that the settings of the probes are others."""


class NotShared:
    """Lets the process send all probes."""

    __slots__ = ()

    def probes(self, destination: Destination) -> bool:
        """Say yes."""
        return True

    def probed(self, destination: Destination, reason: str) -> None:
        """Do nothing."""

    def reconfigured(self) -> None:
        """Do nothing."""


class Prober:
    """Probes the destinations of one pool.

    Args:
        supervisor: The supervisor of the pool, which takes the results.
        settings: The settings of the probes.
        transport_for: Gives the transport and the address for probes of a destination.
        headers: Headers of every probe, besides Host; a User-Agent replaces the package's own.
        random: The source of the jitter of intervals.

    Attributes:
        settings: The settings of the probes.
        sharing: Is asked before each probe, but those of ``sweep`` and ``probe``.
    """

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        settings: HealthSettings,
        transport_for: Callable[[Destination], tuple[Transport, Address]],
        headers: list[tuple[bytes, bytes]],
        random: Random,
    ) -> None:
        self.settings: HealthSettings = settings
        self.sharing: ProbeSharing = NotShared()
        self._supervisor = supervisor
        self._transport_for = transport_for
        self._headers = _with_user_agent(headers)
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[Destination, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._get_only: set[Destination] = set()

    async def sweep(self) -> None:
        """Probe every destination without a result once, all at the same time."""
        if self.settings.enabled:
            observed = self._supervisor.threshold.has_observed
            unknown = [one for one in self._supervisor.pool.destinations if not observed(one)]
            await asyncio.gather(*map(self.probe, unknown))

    def start(self, *, at_once: bool = False) -> None:
        """Run a loop of probes for each destination of the pool; stop those of removed ones.

        Args:
            at_once: Whether to begin with a probe also where one was sent before.
        """
        wanted = set(self._supervisor.pool.destinations) if self.settings.enabled else set()
        for destination in self._tasks.keys() - wanted:
            self._end(destination)
        for destination in self._supervisor.pool.destinations:
            if destination in wanted and destination not in self._tasks:
                observed = self._supervisor.threshold.has_observed(destination)
                self._begin(destination, at_once=at_once or not observed)

    def hasten(self, destinations: Iterable[Destination]) -> None:
        """Begin the loops of probes of ``destinations`` anew, with a probe at once."""
        for destination in destinations:
            if destination in self._tasks:
                self._end(destination)
                self._begin(destination, at_once=True)

    def reconfigure(
        self, settings: HealthSettings, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Change the probe settings, and probe every destination at once.

        Args:
            settings: The settings of the probes.
            headers: Headers of every probe, ``None`` for those of before.
        """
        self.settings = settings
        if headers is not None:
            self._headers = _with_user_agent(headers)
        self._get_only.clear()
        self.sharing.reconfigured()
        for destination in tuple(self._tasks):
            self._end(destination)
        self.start(at_once=True)

    async def aclose(self) -> None:
        """Stop the probes of all destinations."""
        for destination in tuple(self._tasks):
            self._end(destination)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def probe(self, destination: Destination) -> bool:
        """Send one probe and give its result to the supervisor.

        Returns:
            Whether the probe was good.
        """
        latency_ms: float | None = None
        try:
            async with asyncio.timeout(self.settings.timeout):
                reason, latency_ms = await self._check(destination)
        except TimeoutError:
            reason = "no response in time"
        except ProxyError as error:
            reason = str(error)
        except Exception as error:
            upstream, url = self._supervisor.pool.name, destination.url
            _logger.exception(
                "%s: the probe of %s failed unexpectedly",
                upstream,
                url,
                extra={"upstream": upstream, "destination": url},
            )
            reason = type(error).__name__
        ok = not reason
        self._supervisor.probed(destination, ok, latency_ms if ok else None, reason)
        self.sharing.probed(destination, reason)
        return ok

    def _begin(self, destination: Destination, *, at_once: bool) -> None:
        self._tasks[destination] = self._loop.create_task(
            self._probe_repeatedly(destination, at_once),
            name=f"prober of {self._supervisor.pool.name}: {destination.url}",
            context=Context(),
        )

    def _end(self, destination: Destination) -> None:
        task = self._tasks.pop(destination)
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _probe_repeatedly(self, destination: Destination, at_once: bool) -> None:
        if not at_once:
            await asyncio.sleep(self._pause(destination))
        while True:
            if self.sharing.probes(destination):
                await self.probe(destination)
            await asyncio.sleep(self._pause(destination))

    def _pause(self, destination: Destination) -> float:
        settings = self.settings
        interval = settings.interval
        if not destination.healthy and settings.unhealthy_interval is not None:
            interval = settings.unhealthy_interval
        return interval * (1 + settings.jitter * (2 * self._random.random() - 1))

    async def _check(self, destination: Destination) -> tuple[str, float]:
        """Send a probe; give the reason of its failure, ``""`` for none, and the milliseconds."""
        settings = self.settings
        method = b"GET" if destination in self._get_only else settings.method.encode("ascii")
        status, body, milliseconds = await self._exchange(destination, method)
        if method == b"HEAD" and status in _HEAD_REFUSED:
            self._get_only.add(destination)
            status, body, milliseconds = await self._exchange(destination, b"GET")
        if status not in settings.expected:
            return f"status {status}", milliseconds
        if settings.body_match is not None and not re.search(
            settings.body_match, body.decode("utf-8", "replace")
        ):
            return "its body does not match", milliseconds
        return "", milliseconds

    async def _exchange(self, destination: Destination, method: bytes) -> tuple[int, bytes, float]:
        transport, address = self._transport_for(destination)
        host = self.settings.host
        authority = address.authority if host is None else host.encode("ascii")
        path = destination.settings.health_path or self.settings.path or "/"
        raw, _, query = path.encode("ascii").partition(b"?")
        request = OutgoingRequest(
            method,
            join_target(address.base_path, raw, query),
            [(b"host", authority), *self._headers],
            0.0,
        )
        exchange: TransportExchange = await transport.start(request, b"", more=False)
        # Not the loop's clock: uvloop's has whole milliseconds.
        started = monotonic()
        try:
            await exchange.head()
            milliseconds = (monotonic() - started) * 1000
            body = b""
            while len(body) < _BODY_LIMIT_BYTES:
                piece = await exchange.read()
                if not piece:
                    break
                body += piece
            return exchange.status, body, milliseconds
        finally:
            exchange.close()


def _with_user_agent(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    own = [] if any(name == b"user-agent" for name, _ in headers) else [_USER_AGENT]
    return [*own, *headers]
