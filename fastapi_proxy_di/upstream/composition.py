"""One upstream, put together: from settings to everything that serves it.

Settings end here. What the parts read per request are plain slotted objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from random import Random
from typing import Any

from pydantic import SecretStr
from starlette.types import Scope

from fastapi_proxy_di.balancing.affinity import affinity_of
from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.registry import build_policy
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.client.httpx_client import AsGiven, UpstreamClient, UpstreamTransport
from fastapi_proxy_di.client.lease import Lease
from fastapi_proxy_di.client.leasing import lease
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.appending import AppendingBuilder
from fastapi_proxy_di.forwarding.attempt import Route, route_to
from fastapi_proxy_di.forwarding.hedging import Hedging
from fastapi_proxy_di.forwarding.http import HttpForwarder
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.outcomes import Outcomes
from fastapi_proxy_di.forwarding.picking import Picker
from fastapi_proxy_di.forwarding.request import RequestBuilder
from fastapi_proxy_di.forwarding.response_headers import ResponseHeaders
from fastapi_proxy_di.forwarding.retries import RetryBudget
from fastapi_proxy_di.forwarding.retry_loop import RetryLoop
from fastapi_proxy_di.forwarding.websocket import WebSocketForwarder
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.observability.access_record import AccessRecords
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import DestinationSettings, HealthSettings, UpstreamSettings
from fastapi_proxy_di.supervision.events import Events
from fastapi_proxy_di.supervision.prober import Prober
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transforms.pipeline import Pipeline, pipeline_of
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.transport.protocol import Headers, Transport
from fastapi_proxy_di.wire.forwarded import Forwarding
from fastapi_proxy_di.wire.headers import RESPONSE_FATES, FieldTable
from fastapi_proxy_di.wire.urls import Address


class Assembly:
    """The running parts of one upstream. Made in the event loop that they serve.

    Attributes:
        settings: What it was made from.
        pool: The destinations.
        supervisor: Changes the pool.
        policy: Picks.
        journey: What its exchanges go through.
        http: Forwards HTTP.
        websocket: Tunnels WebSockets.
        prober: Sends probes.
        events: Where changes of state are told.

    Args:
        settings: Of the upstream.
        events: Where changes of state are told.
        random: Source of every draw, pauses and jitter included.
        transports: Makes the ways to destinations; tests bring one of their own.

    Raises:
        ValueError: A setting can only be seen to be wrong now: a policy that cannot be
            imported, a certificate that cannot be read. Its text begins with the setting.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        events: Events | None = None,
        random: Random | None = None,
        transports: TransportFactory | None = None,
    ) -> None:
        self.settings = settings
        self.events: Events = events or Events()
        self.random: Random = random or Random()  # noqa: S311  # spreads load, keeps no secret
        self._loop = asyncio.get_running_loop()
        self._factory = transports or TransportFactory(settings)
        self._probe_transports: dict[Destination, Transport] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: UpstreamClient | None = None
        self.policy: BalancingPolicy = build_policy(settings.policy, random=self.random)
        self.pool: Pool = Pool(
            settings.name,
            settings.destination_settings,
            panic=settings.when_none_available == "panic",
        )
        self.supervisor: Supervisor = Supervisor(
            self.pool,
            Ejector(self.pool, settings.ejection),
            Threshold(settings.health.fall, settings.health.rise),
            SlowStart(settings.slow_start),
            self.events,
            window=settings.requests_window,
        )
        self._routes: dict[Destination, Route] = {
            destination: self._route(destination) for destination in self.pool.destinations
        }
        self.admission: Admission | None = self._admission()
        retry_after = max(1.0, settings.health.interval if settings.health.enabled else 1.0)
        affinity = None if settings.affinity is None else affinity_of(settings.affinity, self.pool)
        policy = self.policy.name

        def how(scope: Scope, picked: Destination | None) -> str:
            return "affinity" if affinity is not None and affinity.chose(scope, picked) else policy

        picker = Picker(
            self.policy,
            select if affinity is None else affinity.select,
            self.supervisor,
            retry_after,
        )
        outcomes = Outcomes(self.supervisor, self.policy, settings.ejection)
        budget = RetryBudget(settings.retries.budget_share, settings.retries.budget_minimum)
        retry_loop = RetryLoop(
            settings=settings,
            picker=picker,
            routes=self._routes,
            outcomes=outcomes,
            budget=budget,
            random=self.random,
        )
        send = retry_loop.send
        if settings.retries.hedge_after is not None:
            hedge_after = settings.retries.hedge_after
            send = Hedging(settings, hedge_after, retry_loop, picker, budget).send
        records = AccessRecords(settings.name, self.pool, how, settings.explain)
        self.journey: Journey = Journey(
            settings.name, send, picker, outcomes, self.admission, records.observe
        )
        binding = None if affinity is None else affinity.binding
        transforms = pipeline_of(settings.transforms)
        builder = request_builder(settings, transforms)
        own = secret_headers(settings.response_headers)
        response_headers = ResponseHeaders(response_table(settings, own), own, transforms, binding)
        self.http: HttpForwarder = HttpForwarder(
            settings, self.journey, builder, response_headers, binding
        )
        self.websocket: WebSocketForwarder = WebSocketForwarder(
            settings, self.journey, builder, response_headers, binding
        )
        self.prober: Prober = Prober(
            supervisor=self.supervisor,
            settings=settings.health,
            transport_for=self._probe_transport,
            headers=[],
            random=self.random,
        )

    def client(self, key: Callable[[Scope], PickRequest | None]) -> UpstreamClient:
        """Give the upstream's one httpx client, made when it is first asked for.

        Args:
            key: Gives what the policy may see of a request.
        """
        if self._client is None:
            settings = self.settings
            transport = UpstreamTransport(settings, self.journey, client_builder(settings), key)
            self._client = UpstreamClient(transport, settings)
        return self._client

    def lease(self, key: PickRequest | None) -> AbstractAsyncContextManager[Lease]:
        """Lend a destination, picked for ``key``."""
        return lease(self.journey, key)

    async def start(self) -> None:
        """Start in-process apps, probe every destination once, then keep probing."""
        await self._factory.start()
        await self.prober.sweep()
        self.prober.start()

    async def aclose(self) -> None:
        """Stop probing, close every connection. One failing step never stops the next."""
        self.supervisor.close()
        for task in self._tasks:
            task.cancel()
        transports = [route.transport for route in self._routes.values()]
        transports += self._probe_transports.values()
        if self._client is not None:
            await self._client.shut_down()
        results = await asyncio.gather(
            self.prober.aclose(),
            *self._tasks,
            *(transport.aclose() for transport in transports),
            return_exceptions=True,
        )
        faults = [result for result in results if isinstance(result, Exception)]
        if faults:
            raise ExceptionGroup(f"closing {self.settings.name}", faults)

    def replace(self, settings: Iterable[DestinationSettings]) -> None:
        """Make ``settings`` the destinations; those that stay keep everything."""
        settings = tuple(settings)
        added = {one.url for one in settings} - {one.url for one in self.pool.destinations}
        # Made first: whatever can fail does so before anything has changed.
        made = {one.url: self._factory.make(one.address) for one in settings if one.url in added}
        new, removed = self.supervisor.replace(settings)
        for destination in new:
            self._routes[destination] = route_to(destination, made[destination.url])
        for destination in removed:
            _ = self.own(self._retire(destination), f"retiring {destination.url}")
        self.prober.start()

    def configure_health(self, settings: HealthSettings) -> None:
        """Probe by other settings from now on."""
        self.supervisor.threshold.fall = settings.fall
        self.supervisor.threshold.rise = settings.rise
        self.prober.reconfigure(settings)
        if not settings.enabled:
            self.supervisor.unprobed()
        if self.settings.max_requests_window is None:
            self.supervisor.set_window(settings.interval)

    def own(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``coroutine`` as a task that ends with the upstream at the latest."""
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _retire(self, destination: Destination) -> None:
        """Close a removed destination's connections once its work is done."""
        while destination.in_flight:  # noqa: ASYNC110  # counts tell nobody
            await asyncio.sleep(0.1)
        transports = [self._routes.pop(destination).transport]
        if destination in self._probe_transports:
            transports.append(self._probe_transports.pop(destination))
        for transport in transports:
            await transport.aclose()

    def _route(self, destination: Destination) -> Route:
        return route_to(destination, self._factory.make(destination.settings.address))

    def _probe_transport(self, destination: Destination) -> tuple[Transport, Address]:
        address = destination.settings.probe_address
        if destination.settings.health_url is None:
            return self._routes[destination].transport, address
        transport = self._probe_transports.get(destination)
        if transport is None:
            transport = self._probe_transports[destination] = self._factory.make(address)
        return transport, address

    def _admission(self) -> Admission | None:
        settings = self.settings
        if settings.limits.max_in_flight is None and settings.max_requests is None:
            return None
        return Admission(self.supervisor, settings.limits, settings.max_requests)


def secret_headers(headers: Mapping[str, SecretStr]) -> Headers:
    """Header pairs from the settings' secret values."""
    return [
        (name.encode("latin-1"), secret.get_secret_value().encode("latin-1"))
        for name, secret in headers.items()
    ]


def request_builder(settings: UpstreamSettings, transforms: Pipeline | None) -> RequestBuilder:
    """What makes the requests that leave."""
    forwarded = settings.forwarded
    make: Callable[..., RequestBuilder] = RequestBuilder
    if forwarded.mode == "append":
        make = partial(AppendingBuilder, settings.name)
    return make(
        forwarding=Forwarding(forwarded.mode, forwarded.trusted_proxies, rfc7239=forwarded.rfc7239),
        via=forwarded.via,
        preserve_host=settings.preserve_host,
        request_headers=secret_headers(settings.request_headers),
        remove=frozenset(name.encode("latin-1") for name in settings.remove_request_headers),
        repeatable_methods=frozenset(settings.retries.methods),
        transforms=transforms,
    )


def client_builder(settings: UpstreamSettings) -> RequestBuilder:
    """What makes the requests of the app itself: it is their sender, nobody's proxy."""
    return RequestBuilder(
        forwarding=AsGiven("off", (), rfc7239=False),
        via=False,
        preserve_host=False,
        request_headers=secret_headers(settings.request_headers),
        remove=frozenset(name.encode("latin-1") for name in settings.remove_request_headers),
        repeatable_methods=frozenset(settings.retries.methods),
        is_hop=False,
    )


def response_table(settings: UpstreamSettings, response_headers: Headers) -> FieldTable:
    """Which response fields cross."""
    drop = {name.encode("latin-1") for name in settings.remove_response_headers}
    drop |= {name for name, _ in response_headers}
    if settings.response_server_headers == "drop":
        drop |= {b"date", b"server"}
    return FieldTable(RESPONSE_FATES, drop)
