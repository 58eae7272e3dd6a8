"""An in-app gateway for FastAPI: reverse proxy, load balancer, injectable upstreams."""

from fastapi_proxy_di.balancer import Balancer, ProxiedResponse
from fastapi_proxy_di.dependencies import Upstream
from fastapi_proxy_di.errors import (
    Attempt,
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
    UpstreamConnectError,
    UpstreamDisconnected,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from fastapi_proxy_di.lifespan import proxy_lifespan
from fastapi_proxy_di.options import ForwardOptions
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.routing import proxy_router
from fastapi_proxy_di.settings import (
    AffinitySettings,
    Destinations,
    DestinationSettings,
    EjectionSettings,
    ForwardedSettings,
    HealthSettings,
    LimitSettings,
    RetrySettings,
    TimeoutSettings,
    TlsSettings,
    UpstreamSettings,
    WebSocketSettings,
)
from fastapi_proxy_di.status import DestinationStatus, UpstreamStatus

__version__ = "0.1.0"

__all__ = [
    "AffinitySettings",
    "Attempt",
    "Balancer",
    "Destination",
    "DestinationSettings",
    "DestinationStatus",
    "Destinations",
    "EjectionSettings",
    "Failure",
    "ForwardOptions",
    "ForwardedSettings",
    "HealthSettings",
    "InvalidRequest",
    "LimitExceeded",
    "LimitSettings",
    "LocalResourcesExhausted",
    "NoAvailableDestination",
    "ProxiedResponse",
    "ProxyError",
    "ProxyNotStarted",
    "RequestBodyConsumed",
    "RequestBodyTimeout",
    "RequestBodyTooLarge",
    "RetrySettings",
    "SettingsError",
    "Side",
    "TimeoutSettings",
    "TlsSettings",
    "Upstream",
    "UpstreamConnectError",
    "UpstreamDisconnected",
    "UpstreamProtocolError",
    "UpstreamSettings",
    "UpstreamStatus",
    "UpstreamTimeout",
    "WebSocketSettings",
    "__version__",
    "proxy_lifespan",
    "proxy_router",
]
