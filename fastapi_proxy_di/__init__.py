"""An in-app gateway for FastAPI: reverse proxy, load balancer, injectable upstreams."""

import logging

from fastapi_proxy_di.balancing.policy import (
    BalancingPolicy,
    ObservingPolicy,
    OrderingPolicy,
    PickRequest,
)
from fastapi_proxy_di.client.lease import Lease
from fastapi_proxy_di.discovery.events import (
    DestinationsFound,
    DiscoveryFailed,
    DiscoveryRecovered,
)
from fastapi_proxy_di.discovery.protocol import DiscoveryError, DiscoverySource, Search
from fastapi_proxy_di.errors import (
    AnswerTooLarge,
    Attempt,
    DestinationNotAllowed,
    Failure,
    InvalidRequest,
    LimitExceeded,
    LocalResourcesExhausted,
    NoAvailableDestination,
    ProxyError,
    ProxyNotStarted,
    RequestBodyConsumed,
    RequestBodyTimeout,
    RequestBodyTooLarge,
    SettingsError,
    Side,
    UpstreamClosed,
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamProtocolError,
    UpstreamsNotReady,
    UpstreamTimeout,
)
from fastapi_proxy_di.forwarding.taps import Tap, TapExchange
from fastapi_proxy_di.forwarding.usage import Usage
from fastapi_proxy_di.forwarding.usage_tap import usage_tap
from fastapi_proxy_di.integration.app import ProxyApp, proxy_app
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.lifespan import proxy_lifespan
from fastapi_proxy_di.integration.metrics import metrics_router, proxy_collector
from fastapi_proxy_di.integration.options import ForwardOptions
from fastapi_proxy_di.integration.proxy_upstream import proxy_upstream
from fastapi_proxy_di.integration.rate_limit import (
    RateLimit,
    RateLimitExceeded,
    client_address,
    rate_limit,
)
from fastapi_proxy_di.integration.readiness import upstreams_ready
from fastapi_proxy_di.integration.reload_upstreams import reload_upstreams
from fastapi_proxy_di.integration.router import proxy_router
from fastapi_proxy_di.integration.status_page.process_reports import (
    DestinationTotalsReport,
    ProcessReport,
    ProcessUpstreamReport,
    TotalsReport,
)
from fastapi_proxy_di.integration.status_page.reports import (
    ActionReport,
    AppliedReport,
    EventReport,
    EventsReport,
    MountReport,
    RouteReport,
    StatusReport,
)
from fastapi_proxy_di.integration.status_page.router import status_router
from fastapi_proxy_di.observability.last_resort import LastResort
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import (
    AffinitySettings,
    AllowedDestinationsSettings,
    ClusterSettings,
    Destinations,
    DestinationSettings,
    DiscoverySettings,
    EjectionSettings,
    ForwardedSettings,
    HealthSettings,
    LimitSettings,
    ProxySettings,
    RetrySettings,
    StreamSettings,
    TelemetrySettings,
    TimeoutSettings,
    TlsSettings,
    UpstreamSettings,
    WebSocketSettings,
)
from fastapi_proxy_di.supervision.events import (
    DestinationDown,
    DestinationDraining,
    DestinationEjected,
    DestinationReadmitted,
    DestinationUndrained,
    DestinationUp,
    EgressSuspected,
    Event,
    LimitHit,
    PanicEnded,
    PanicStarted,
    Reloaded,
    ReloadFailed,
    StoreBack,
    StoreLost,
)
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.proxied_response import ProxiedResponse
from fastapi_proxy_di.upstream.status import (
    DestinationStatus,
    Percentiles,
    ReloadStatus,
    SourceStatus,
    UpstreamStatus,
)
from fastapi_proxy_di.wire.event_stream import SseEvent

__version__ = "0.1.0"

__all__ = [
    "ActionReport",
    "AffinitySettings",
    "AllowedDestinationsSettings",
    "AnswerTooLarge",
    "AppliedReport",
    "Attempt",
    "Balancer",
    "BalancingPolicy",
    "ClusterSettings",
    "Destination",
    "DestinationDown",
    "DestinationDraining",
    "DestinationEjected",
    "DestinationNotAllowed",
    "DestinationReadmitted",
    "DestinationSettings",
    "DestinationStatus",
    "DestinationTotalsReport",
    "DestinationUndrained",
    "DestinationUp",
    "Destinations",
    "DestinationsFound",
    "DiscoveryError",
    "DiscoveryFailed",
    "DiscoveryRecovered",
    "DiscoverySettings",
    "DiscoverySource",
    "EgressSuspected",
    "EjectionSettings",
    "Event",
    "EventReport",
    "EventsReport",
    "Failure",
    "ForwardOptions",
    "ForwardedSettings",
    "HealthSettings",
    "InvalidRequest",
    "Lease",
    "LimitExceeded",
    "LimitHit",
    "LimitSettings",
    "LocalResourcesExhausted",
    "MountReport",
    "NoAvailableDestination",
    "ObservingPolicy",
    "OrderingPolicy",
    "PanicEnded",
    "PanicStarted",
    "Percentiles",
    "PickRequest",
    "ProcessReport",
    "ProcessUpstreamReport",
    "ProxiedResponse",
    "ProxyApp",
    "ProxyError",
    "ProxyNotStarted",
    "ProxySettings",
    "RateLimit",
    "RateLimitExceeded",
    "ReloadFailed",
    "ReloadStatus",
    "Reloaded",
    "RequestBodyConsumed",
    "RequestBodyTimeout",
    "RequestBodyTooLarge",
    "RetrySettings",
    "RouteReport",
    "Search",
    "SettingsError",
    "Side",
    "SourceStatus",
    "SseEvent",
    "StatusReport",
    "StoreBack",
    "StoreLost",
    "StreamSettings",
    "Tap",
    "TapExchange",
    "TelemetrySettings",
    "TimeoutSettings",
    "TlsSettings",
    "TotalsReport",
    "Upstream",
    "UpstreamClosed",
    "UpstreamConnectError",
    "UpstreamDisconnected",
    "UpstreamProtocolError",
    "UpstreamSettings",
    "UpstreamStatus",
    "UpstreamTimeout",
    "UpstreamsNotReady",
    "Usage",
    "WebSocketSettings",
    "__version__",
    "client_address",
    "metrics_router",
    "proxy_app",
    "proxy_collector",
    "proxy_lifespan",
    "proxy_router",
    "proxy_upstream",
    "rate_limit",
    "reload_upstreams",
    "status_router",
    "upstreams_ready",
    "usage_tap",
]

logging.getLogger(__name__).addHandler(LastResort())
