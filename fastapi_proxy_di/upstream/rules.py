"""The rules of one upstream: all that its settings decide about a request, made as a whole.

A reload makes new rules and puts them in place of the old ones by one assignment. A request that
is under way keeps the rules that it began with, because it holds them. What outlives the
settings, such as counts and connections, is in `RunningUpstream`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from fastapi_proxy_di.balancing.affinity import Affinity, Binding, affinity_of
from fastapi_proxy_di.balancing.hash_key import KeyReader, RequestKey, key_reader, no_key
from fastapi_proxy_di.balancing.issued_affinity import IssuedBinding
from fastapi_proxy_di.balancing.only_destination import OnlyDestination
from fastapi_proxy_di.balancing.policy import BalancingPolicy
from fastapi_proxy_di.balancing.prefix import Prefix
from fastapi_proxy_di.balancing.registry import build_policy
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.client.httpx_client import AsGiven, CallRules
from fastapi_proxy_di.forwarding.appending import AppendingBuilder
from fastapi_proxy_di.forwarding.body_keys import body_keys_of
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.hedging import Hedging
from fastapi_proxy_di.forwarding.holding import http_forwarder
from fastapi_proxy_di.forwarding.http import HttpForwarder
from fastapi_proxy_di.forwarding.journey import Journey, Send
from fastapi_proxy_di.forwarding.key_cooling import KeyCooling
from fastapi_proxy_di.forwarding.outcomes import Outcomes
from fastapi_proxy_di.forwarding.pace import pace_of
from fastapi_proxy_di.forwarding.request import RequestBuilder
from fastapi_proxy_di.forwarding.response_headers import ResponseHeaders
from fastapi_proxy_di.forwarding.retry_loop import RetryLoop
from fastapi_proxy_di.forwarding.websocket import WebSocketForwarder
from fastapi_proxy_di.observability.access_record import AccessRecords
from fastapi_proxy_di.observability.observers import UpstreamObservers
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.observability.tracing import Tracing
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import POLICIES, UpstreamSettings
from fastapi_proxy_di.transforms.pipeline import Pipeline, pipeline_of
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.forwarded import Forwarding
from fastapi_proxy_di.wire.headers import RESPONSE_KINDS, HeaderKinds
from fastapi_proxy_di.wire.reachable import refusal

if TYPE_CHECKING:
    from fastapi_proxy_di.upstream.running import RunningUpstream

__all__ = [
    "Rules",
    "is_limited",
    "make_rules",
    "policy_of",
    "request_builder",
    "response_table",
    "secret_headers",
]

_POLICIES_WITH_KEY: Final = frozenset({"hash"})
"""The built-in policies that read the key of a request."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Rules:
    """What the settings of an upstream decide about its requests.

    Attributes:
        settings: The settings.
        telemetry: The telemetry of the app, with its settings.
        policy: Picks destinations.
        journey: The steps that exchanges go through.
        http: Forwards HTTP.
        websocket: Tunnels WebSockets.
        read_key: Reads the hash key of a request; ``None`` if no key is used.
        binding: Keeps clients on their destination, ``None`` for no affinity.
        calls: What decides about the calls of the app itself.
        guarded_factory: Makes transports to dynamic destinations; ``None`` where none are
            allowed.
    """

    settings: UpstreamSettings
    telemetry: Telemetry
    policy: BalancingPolicy
    journey: Journey
    http: HttpForwarder
    websocket: WebSocketForwarder
    read_key: KeyReader | None
    binding: Binding | None
    calls: CallRules
    guarded_factory: TransportFactory | None


def make_rules(
    settings: UpstreamSettings,
    telemetry: Telemetry,
    policy: BalancingPolicy,
    running: RunningUpstream,
    factory: TransportFactory | None = None,
) -> Rules:
    """Make the rules of an upstream; changes nothing about the upstream.

    Args:
        settings: The settings.
        telemetry: The telemetry of the app.
        policy: Picks destinations; it may have learned from earlier traffic.
        running: The upstream, for the parts that outlive its settings.
        factory: Makes transports by these settings, ``None`` for that of the upstream.
    """
    pool = running.pool
    affinity = None if settings.affinity is None else affinity_of(settings.affinity, pool)
    binding = None if affinity is None else affinity.binding
    how = _how(policy, affinity)
    observers = UpstreamObservers(
        running.metrics,
        Tracing(settings.name, telemetry, how),
        AccessRecords(settings.name, pool, how, settings.explain, telemetry),
    )
    journey = _journey(settings, policy, affinity, observers, running)
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
    body_keys = body_keys_of(settings)
    return Rules(
        settings=settings,
        telemetry=telemetry,
        policy=policy,
        journey=journey,
        http=http_forwarder(settings, journey, builder, response_headers, binding, body_keys),
        websocket=WebSocketForwarder(
            settings, journey, builder, response_headers, running.tunnels, binding
        ),
        read_key=read_key,
        binding=binding,
        calls=CallRules(
            settings,
            journey,
            client_builder(settings),
            lambda scope: None if read_key is None else RequestKey(scope, read_key, None),
            # No cookie, which would bind all calls of the app to one destination.
            binding if isinstance(binding, IssuedBinding) else None,
            body_keys,
            pace_of(settings.streams, heartbeat=False),
        ),
        guarded_factory=_guarded_factory(settings, factory or running.transports.factory),
    )


def _guarded_factory(
    settings: UpstreamSettings, factory: TransportFactory
) -> TransportFactory | None:
    """Give the factory of transports to dynamic destinations.

    Raises:
        ValueError: The settings fit no address.
    """
    allowed = settings.allowed_destinations
    if not allowed.some:
        return None
    guard = partial(refusal, networks=allowed.networks)
    return factory.guarded(settings, guard)


def policy_of(settings: UpstreamSettings, running: RunningUpstream) -> BalancingPolicy:
    """Give the policy of the settings.

    A policy that the upstream had before is used again, so that what it has learned stays, and
    the destinations report to one ``least_requests`` alone.

    Raises:
        ValueError: The policy cannot be imported, or is none.
    """
    spec = settings.policy
    key = spec if isinstance(spec, str) else type(spec)
    found = running.policies.get(key)
    if found is None:
        found = running.policies[key] = build_policy(spec, random=running.random)
    return found


def _journey(
    settings: UpstreamSettings,
    policy: BalancingPolicy,
    affinity: Affinity | None,
    observers: UpstreamObservers,
    running: RunningUpstream,
) -> Journey:
    """Make the journey: admission and hedging around the retry loop."""
    outcomes = Outcomes(running.supervisor, policy, settings.ejection)
    selection = select if affinity is None else affinity.select
    key_cooling = None
    if settings.ejection.key is not None:
        key_cooling = KeyCooling(settings.ejection, running.cooled_pairs, selection)
    retry_loop = RetryLoop(
        settings=settings,
        policy=policy,
        select=selection,
        supervisor=running.supervisor,
        transports=running.transports.by_destination,
        outcomes=outcomes,
        budget=running.budget,
        outage_of=lambda _: running.outage,
        random=running.random,
        key_cooling=key_cooling,
    )
    send: Send = retry_loop.send
    if settings.retries.hedge_after is not None:
        hedge_after = settings.retries.hedge_after
        send = Hedging(settings, hedge_after, retry_loop, running.budget).send
    if key_cooling is not None:
        send = key_cooling.around(send)
    journey = Journey(
        settings.name,
        send,
        retry_loop.hold,
        outcomes,
        running.admission if is_limited(settings) else None,
        observers,
        running.failures,
    )
    if not is_limited(settings):
        running.admission.unlimited.add(journey)
    return journey


def is_limited(settings: UpstreamSettings) -> bool:
    """Whether the upstream has limits of requests of its own."""
    limits = settings.limits
    limited = limits.max_in_flight is not None or settings.max_requests is not None
    return limited or limits.queue > 0


def _how(
    policy: BalancingPolicy, affinity: Affinity | None
) -> Callable[[Exchange, Destination | None], str]:
    """Give the function that names what has picked a destination: policy, affinity or address."""

    def how(exchange: Exchange, picked: Destination | None) -> str:
        if isinstance(exchange.key, OnlyDestination):
            return "address"
        chosen = affinity is not None and affinity.chose(exchange.scope, picked)
        return "affinity" if chosen else policy.name

    return how


def _key_reader(settings: UpstreamSettings) -> KeyReader | None:
    """Give the reader of hash keys; ``None`` if nothing uses the key of a request."""
    policy = settings.policy
    if policy == Prefix.name:
        return no_key  # the body has the key
    if settings.affinity is None and policy in POLICIES and policy not in _POLICIES_WITH_KEY:
        return None if settings.ejection.key is None else no_key
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
