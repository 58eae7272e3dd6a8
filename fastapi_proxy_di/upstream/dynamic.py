"""Requests to dynamic destinations: the rules of an upstream for what is not in its pool.

The same journey as to the pool, with the same timeouts, limits and transforms, but other ends:

- the destination is the one at the address that the request gives, if it is allowed;
- no health, no ejection, no policy, and no retry but on a new connection to the same address;
- nothing of the client and of the settings goes there that is a secret, unless the settings or
  the arguments of the call say so.

Limits of requests count apart from those of the pool.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from fastapi_proxy_di.balancing.first import First
from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.selection import Pick
from fastapi_proxy_di.client.lease import Lease
from fastapi_proxy_di.client.leasing import lease
from fastapi_proxy_di.errors import DestinationNotAllowed
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.http import HttpForwarder
from fastapi_proxy_di.forwarding.journey import Journey, Send
from fastapi_proxy_di.forwarding.outage import Outage
from fastapi_proxy_di.forwarding.outcomes import Outcomes
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.forwarding.response_headers import HostOnlyCookies
from fastapi_proxy_di.forwarding.retries import RetryBudget
from fastapi_proxy_di.forwarding.retry_loop import RetryLoop
from fastapi_proxy_di.forwarding.websocket import WebSocketForwarder
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.observability.access_record import AccessRecords
from fastapi_proxy_di.observability.observers import UpstreamObservers
from fastapi_proxy_di.observability.tracing import Tracing
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import (
    EjectionSettings,
    StatusCodes,
    UpstreamSettings,
)
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transforms.pipeline import pipeline_of
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.upstream.client_request import Forwarder
from fastapi_proxy_di.upstream.dynamic_destinations import DynamicDestinations
from fastapi_proxy_di.upstream.rules import (
    Rules,
    is_limited,
    request_builder,
    response_table,
    secret_headers,
)
from fastapi_proxy_di.wire.addresses import Address
from fastapi_proxy_di.wire.dynamic_address import Origin, allowed_address
from fastapi_proxy_di.wire.reachable import Network

if TYPE_CHECKING:
    from fastapi_proxy_di.upstream.running import RunningUpstream

__all__ = ["DynamicUpstream"]

_CREDENTIALS: Final = frozenset({b"authorization", b"cookie"})
"""Headers of the client that do not go to an address; ``Proxy-Authorization`` goes nowhere."""


class DynamicUpstream:
    """What an upstream needs for requests to dynamic destinations, as long as it runs.

    Args:
        running: The upstream.
        settings: Settings that allow dynamic destinations.
        factory: Makes the transports, which judge each IP address.

    Attributes:
        destinations: The destinations in use.
        admission: Admits requests where the settings have limits of requests.
        forwarder: Forwards requests whose overrides have a destination, by the current rules.
    """

    def __init__(
        self, running: RunningUpstream, settings: UpstreamSettings, factory: TransportFactory
    ) -> None:
        name = settings.name
        pool = Pool(name, (), panic=False)
        # It counts the window and reports limits. Nothing is ejected, probed or warmed up.
        self._supervisor: Final = Supervisor(
            pool,
            Ejector(pool, EjectionSettings(enabled=False)),
            Threshold(1, 1),
            SlowStart(0.0),
            running.events,
            window=settings.requests_window,
        )
        self.destinations: Final = DynamicDestinations(
            name, settings.limits, factory, self._supervisor.limit_hit
        )
        self.admission: Final = Admission(
            self._supervisor,
            settings.limits,
            settings.max_requests,
            lambda: self.destinations.by_destination,
        )
        self.forwarder: Final = Forwarder()
        self._running: Final = running
        self._allowed = settings.allowed_destinations
        # Also those of former rules: a request that has begun keeps its own.
        self._journeys: Final[WeakSet[Journey]] = WeakSet()

    def use(self, rules: Rules) -> None:
        """Let the requests that begin from now on go by ``rules``; counts and limits stay."""
        factory, settings = rules.guarded_factory, rules.settings
        allowed, self._allowed = self._allowed, settings.allowed_destinations
        self._supervisor.set_window(settings.requests_window)
        self.admission.configure(settings.limits, settings.max_requests)
        if factory is None:
            self.destinations.retire()
            return
        self.destinations.use(settings.limits, factory, replaces=allowed != self._allowed)
        self.forwarder.rules = self._made_from(rules)
        journey = self.forwarder.rules.journey
        self._journeys.add(journey)
        if not is_limited(settings):
            self.admission.unlimited.add(journey)

    def lease(self, destination: str) -> AbstractAsyncContextManager[Lease]:
        """Lease the destination at an address."""
        return lease(self.forwarder.rules.journey, None, Overrides(destination=destination))

    def refuse(self) -> None:
        """Refuse requests from now on; those under way continue."""
        for journey in self._journeys:
            journey.close()

    @property
    def waiting(self) -> int:
        """Number of requests that wait until their address responds."""
        return self.destinations.waiting

    def end_waiting(self) -> None:
        """Refuse the requests that wait, in the queue or for their address, and later ones."""
        self.admission.close()
        self.destinations.end_waiting()

    def discard(self) -> None:
        """Stop the timers."""
        self._supervisor.close()

    async def aclose(self) -> None:
        """Close all connections."""
        self.discard()
        await self.destinations.aclose()

    def _made_from(self, rules: Rules) -> Rules:
        """Make the rules for dynamic destinations from those of the upstream."""
        running, settings = self._running, _settings(rules.settings)
        name, allowed = settings.name, settings.allowed_destinations
        pool = self._supervisor.pool
        observers = UpstreamObservers(
            running.metrics,
            Tracing(name, rules.telemetry, _how),
            AccessRecords(name, pool, _how, settings.explain, rules.telemetry),
        )
        journey = self._journey(settings, observers)
        transforms = pipeline_of(settings.transforms)
        withheld = frozenset() if allowed.credentials else _withheld(rules.settings)
        builder = request_builder(
            settings, transforms, (*rules.telemetry.removed_headers(), *withheld)
        )
        own = secret_headers(settings.response_headers)
        response_headers = HostOnlyCookies(
            response_table(settings, own),
            own,
            transforms,
            None,
            pool,
            rewrites_location=settings.location == "rewrite",
        )
        return dataclasses.replace(
            rules,
            journey=journey,
            # The binding removes from requests what only this proxy reads, and binds nobody here.
            http=HttpForwarder(settings, journey, builder, response_headers, rules.binding),
            websocket=WebSocketForwarder(
                settings, journey, builder, response_headers, running.tunnels, rules.binding
            ),
            read_key=None,
        )

    def _journey(self, settings: UpstreamSettings, observers: UpstreamObservers) -> Journey:
        outcomes = Outcomes(self._supervisor, First(), settings.ejection)
        retry_loop = RetryLoop(
            settings=settings,
            policy=First(),
            select=_select,
            supervisor=self._supervisor,
            transports=self.destinations.by_destination,
            outcomes=outcomes,
            budget=RetryBudget(0.0, 0, started=monotonic()),
            outage_of=self._outage_of,
            random=self._running.random,
        )
        journey = Journey(
            settings.name,
            retry_loop.send,
            retry_loop.hold,
            outcomes,
            self.admission if is_limited(settings) else None,
            observers,
            self._running.failures,
        )
        # Outside of admission: a request that is refused takes no place and waits for none.
        journey.send = self._at_the_address(journey.send, settings)
        journey.hold = self._at_the_address(journey.hold, settings)
        return journey

    def _at_the_address(self, send: Send, settings: UpstreamSettings) -> Send:
        """Let a layer pick the destination at the address that the overrides give."""
        allowed = settings.allowed_destinations
        origins, networks = allowed.parsed_origins, allowed.networks
        # Else admission counts them. Those without a limit count for the first one that is set.
        counts = not is_limited(settings)

        async def sent(exchange: Exchange) -> None:
            address = _address_of(exchange, origins, networks)
            destination = self.destinations.hold(address)
            exchange.key = _Given(destination)
            if counts:
                self._supervisor.requests_in_window += 1
            try:
                await send(exchange)
            finally:
                self.destinations.release(destination)

        return sent

    def _outage_of(self, exchange: Exchange) -> Outage:
        assert isinstance(exchange.key, _Given)
        return self.destinations.outage_of(exchange.key.destination)


def _address_of(
    exchange: Exchange, origins: Collection[Origin], networks: Sequence[Network]
) -> Address:
    assert exchange.overrides is not None
    assert exchange.overrides.destination is not None
    try:
        return allowed_address(exchange.overrides.destination, origins, networks)
    except ValueError as error:
        raise DestinationNotAllowed(f"destination: {error}") from None


class _Given:
    """The destination at the address that a request gives, in place of a policy's key."""

    __slots__ = ("destination",)

    def __init__(self, destination: Destination) -> None:
        self.destination: Final = destination

    def key(self) -> None:
        """Give no key."""


def _select(
    policy: BalancingPolicy,
    pool: Pool,
    request: PickRequest | None = None,
    tried: Collection[Destination] = (),
) -> Pick:
    """Pick the destination that the request gives, as ``balancing.selection.select`` would."""
    assert isinstance(request, _Given)
    return (None if request.destination in tried else request.destination), ()


def _how(exchange: Exchange, picked: Destination | None) -> str:
    return "address"


def _settings(settings: UpstreamSettings) -> UpstreamSettings:
    """Give the settings for addresses: no counted retries, no hedging, and their own Host."""
    none = StatusCodes()
    changes: dict[str, object] = {
        "retries": settings.retries.model_copy(
            update={
                "attempts": 0,
                "statuses": none,
                "refused_statuses": none,
                "hedge_after": None,
            }
        ),
        "ejection": settings.ejection.model_copy(
            update={"statuses": none, "respect_retry_after": False}
        ),
        "preserve_host": False,
    }
    if not settings.allowed_destinations.credentials:
        changes["request_headers"] = {}
    return settings.model_copy(update=changes)


def _withheld(settings: UpstreamSettings) -> frozenset[bytes]:
    """Give the headers of the client that do not go to an address.

    Those of ``request_headers`` neither, which a client could forge where the settings do not
    replace them.
    """
    return _CREDENTIALS | {name.encode("latin-1") for name in settings.request_headers}
