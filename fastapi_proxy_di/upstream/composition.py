"""Builds the parts of one upstream from its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random
from time import monotonic
from types import ModuleType
from typing import Final

from pydantic import SecretStr
from starlette.types import Scope

from fastapi_proxy_di.balancing.affinity import Affinity, affinity_of
from fastapi_proxy_di.balancing.hash_key import KeyReader, RequestKey, key_reader
from fastapi_proxy_di.balancing.policy import BalancingPolicy
from fastapi_proxy_di.balancing.registry import build_policy
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.client.clients import Clients
from fastapi_proxy_di.client.httpx_client import AsGiven, UpstreamTransport
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.appending import AppendingBuilder
from fastapi_proxy_di.forwarding.hedging import Hedging
from fastapi_proxy_di.forwarding.http import HttpForwarder
from fastapi_proxy_di.forwarding.journey import Journey
from fastapi_proxy_di.forwarding.outcomes import Outcomes
from fastapi_proxy_di.forwarding.request import RequestBuilder
from fastapi_proxy_di.forwarding.response_headers import ResponseHeaders
from fastapi_proxy_di.forwarding.retries import RetryBudget
from fastapi_proxy_di.forwarding.retry_loop import RetryLoop
from fastapi_proxy_di.forwarding.websocket import WebSocketForwarder
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.observability.access_record import AccessRecords
from fastapi_proxy_di.observability.changes import Changes
from fastapi_proxy_di.observability.instruments import instruments_of
from fastapi_proxy_di.observability.metrics import Metrics
from fastapi_proxy_di.observability.observers import UpstreamObservers
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.observability.tracing import Tracing
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import POLICIES, UpstreamSettings
from fastapi_proxy_di.supervision.events import Events
from fastapi_proxy_di.supervision.prober import Prober
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transforms.pipeline import Pipeline, pipeline_of
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.upstream.running import RunningUpstream
from fastapi_proxy_di.upstream.transports import Transports
from fastapi_proxy_di.wire.forwarded import Forwarding
from fastapi_proxy_di.wire.headers import RESPONSE_KINDS, HeaderKinds

_POLICIES_WITH_KEY: Final = frozenset({"hash"})
"""The built-in policies that read the key of a request."""


def compose(
    settings: UpstreamSettings,
    *,
    events: Events | None = None,
    random: Random | None = None,
    factory: TransportFactory | None = None,
    telemetry: Telemetry | None = None,
) -> RunningUpstream:
    """Build the parts of one upstream, in the event loop that they will run in.

    Args:
        settings: The settings of the upstream.
        events: Emits the changes of state.
        random: Source of every random number, for picks, pauses and jitter.
        factory: Makes the transports to destinations; tests give their own.
        telemetry: The telemetry of the app.

    Raises:
        ValueError: A setting has a fault that validation cannot find, such as a policy that
            cannot be imported or a certificate that cannot be read. The text begins with the
            setting.
    """
    events = events or Events()
    random = random or Random()  # noqa: S311  # spreads load, keeps no secret
    policy = build_policy(settings.policy, random=random)
    pool = Pool(
        settings.name,
        settings.destination_settings,
        panic=settings.when_none_available == "panic",
    )
    supervisor = Supervisor(
        pool,
        Ejector(pool, settings.ejection),
        Threshold(settings.health.fall, settings.health.rise),
        SlowStart(settings.slow_start),
        events,
        window=settings.requests_window,
    )
    transports = Transports(factory or TransportFactory(settings), pool.destinations)
    affinity = None if settings.affinity is None else affinity_of(settings.affinity, pool)
    binding = None if affinity is None else affinity.binding
    limits = settings.limits
    limited = limits.queue or limits.max_in_flight is not None or settings.max_requests is not None
    admission = Admission(supervisor, settings.limits, settings.max_requests) if limited else None
    metrics = Metrics(settings.name, pool.destinations)
    telemetry = telemetry or Telemetry()
    how = _how(policy, affinity)
    observers = UpstreamObservers(
        metrics,
        Tracing(settings.name, telemetry, how),
        AccessRecords(settings.name, pool, how, settings.explain, telemetry),
    )
    retries = settings.retries
    budget = RetryBudget(retries.budget_share, retries.budget_minimum, started=monotonic())
    journey = _journey(
        settings, policy, supervisor, transports, affinity, admission, observers, budget, random
    )
    upstream_transforms = pipeline_of(settings.transforms)
    builder = request_builder(settings, upstream_transforms, telemetry.removed_headers())
    own = secret_headers(settings.response_headers)
    response_headers = ResponseHeaders(
        response_table(settings, own),
        own,
        upstream_transforms,
        binding,
        pool,
        rewrites_location=settings.location == "rewrite",
    )
    read_key = _key_reader(settings)

    def client_transport(library: ModuleType) -> UpstreamTransport:
        return UpstreamTransport(
            library,
            settings,
            journey,
            client_builder(settings),
            lambda scope: None if read_key is None else RequestKey(scope, read_key, None),
        )

    return RunningUpstream(
        settings=settings,
        events=events,
        random=random,
        policy=policy,
        pool=pool,
        supervisor=supervisor,
        transports=transports,
        prober=Prober(
            supervisor=supervisor,
            settings=settings.health,
            transport_for=transports.to_probe,
            headers=secret_headers(settings.health.headers),
            random=random,
        ),
        admission=admission,
        journey=journey,
        metrics=metrics,
        changes=Changes(settings.name),
        budget=budget,
        instruments=instruments_of(telemetry) if telemetry.settings.metrics else None,
        http=HttpForwarder(settings, journey, builder, response_headers, binding),
        websocket=WebSocketForwarder(settings, journey, builder, response_headers, binding),
        read_key=read_key,
        clients=Clients(settings, client_transport),
    )


def _journey(
    settings: UpstreamSettings,
    policy: BalancingPolicy,
    supervisor: Supervisor,
    transports: Transports,
    affinity: Affinity | None,
    admission: Admission | None,
    observers: UpstreamObservers,
    budget: RetryBudget,
    random: Random,
) -> Journey:
    """Make the journey: admission and hedging around the retry loop."""
    outcomes = Outcomes(supervisor, policy, settings.ejection)
    retry_loop = RetryLoop(
        settings=settings,
        policy=policy,
        select=select if affinity is None else affinity.select,
        supervisor=supervisor,
        transports=transports.by_destination,
        outcomes=outcomes,
        budget=budget,
        random=random,
    )
    send = retry_loop.send
    if settings.retries.hedge_after is not None:
        hedge_after = settings.retries.hedge_after
        send = Hedging(settings, hedge_after, retry_loop, budget).send
    return Journey(settings.name, send, retry_loop.hold, outcomes, admission, observers)


def _how(
    policy: BalancingPolicy, affinity: Affinity | None
) -> Callable[[Scope, Destination | None], str]:
    """Give the function that names what has picked a destination, policy or affinity."""

    def how(scope: Scope, picked: Destination | None) -> str:
        chosen = affinity is not None and affinity.chose(scope, picked)
        return "affinity" if chosen else policy.name

    return how


def _key_reader(settings: UpstreamSettings) -> KeyReader | None:
    """Give the reader of hash keys; ``None`` if neither policy nor affinity uses a key."""
    policy = settings.policy
    if settings.affinity is None and policy in POLICIES and policy not in _POLICIES_WITH_KEY:
        return None
    return key_reader(settings.hash_key)


def secret_headers(headers: Mapping[str, SecretStr]) -> Headers:
    """Make header pairs of the settings' secret values."""
    return [
        (name.encode("latin-1"), secret.get_secret_value().encode("latin-1"))
        for name, secret in headers.items()
    ]


def request_builder(
    settings: UpstreamSettings, transforms: Pipeline | None, remove: Iterable[bytes] = ()
) -> RequestBuilder:
    """Give the builder of forwarded requests.

    Args:
        settings: The settings of the upstream.
        transforms: Changes to requests.
        remove: Further headers of the client that are not passed on.
    """
    forwarded = settings.forwarded
    make: Callable[..., RequestBuilder] = RequestBuilder
    if forwarded.mode == "append":
        make = partial(AppendingBuilder, settings.name)
    return make(
        forwarding=Forwarding(forwarded.mode, forwarded.trusted_proxies, rfc7239=forwarded.rfc7239),
        via=forwarded.via,
        preserve_host=settings.preserve_host,
        request_headers=secret_headers(settings.request_headers),
        remove=frozenset(name.encode("latin-1") for name in settings.remove_request_headers)
        | frozenset(remove),
        repeatable_methods=frozenset(settings.retries.methods),
        transforms=transforms,
        pass_dot_segments=settings.dot_segments == "pass",
    )


def client_builder(settings: UpstreamSettings) -> RequestBuilder:
    """Give the builder of the app's own requests, which are sent as a client, not as a proxy."""
    return RequestBuilder(
        forwarding=AsGiven("off", (), rfc7239=False),
        via=False,
        preserve_host=False,
        request_headers=secret_headers(settings.request_headers),
        remove=frozenset(name.encode("latin-1") for name in settings.remove_request_headers),
        repeatable_methods=frozenset(settings.retries.methods),
        is_hop=False,
        pass_dot_segments=True,
    )


def response_table(settings: UpstreamSettings, response_headers: Headers) -> HeaderKinds:
    """Give the table that says which response headers are forwarded."""
    drop = {name.encode("latin-1") for name in settings.remove_response_headers}
    drop |= {name for name, _ in response_headers}
    if settings.response_server_headers == "drop":
        drop |= {b"date", b"server"}
    return HeaderKinds(RESPONSE_KINDS, drop)
