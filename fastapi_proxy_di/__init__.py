"""An in-app gateway for FastAPI: reverse proxy, load balancer, injectable upstreams.

The names are imported when they are first asked for, because pytest imports this file, for
the plugin beside it, in every run of an environment that has the package.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fastapi_proxy_di.balancing.policy import (
        BalancingPolicy,
        ObservingPolicy,
        OrderingPolicy,
        PickRequest,
    )
    from fastapi_proxy_di.client.lease import Lease
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
        UpstreamsNotReady,
        UpstreamTimeout,
    )
    from fastapi_proxy_di.integration.app import ProxyApp, proxy_app
    from fastapi_proxy_di.integration.dependency import Upstream
    from fastapi_proxy_di.integration.lifespan import proxy_lifespan
    from fastapi_proxy_di.integration.options import ForwardOptions
    from fastapi_proxy_di.integration.readiness import upstreams_ready
    from fastapi_proxy_di.integration.router import proxy_router
    from fastapi_proxy_di.pools.destination import Destination
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
    from fastapi_proxy_di.supervision.events import (
        DestinationDown,
        DestinationDraining,
        DestinationEjected,
        DestinationReadmitted,
        DestinationUndrained,
        DestinationUp,
        Event,
        LimitHit,
        PanicEnded,
        PanicStarted,
    )
    from fastapi_proxy_di.upstream.balancer import Balancer, ProxiedResponse
    from fastapi_proxy_di.upstream.status import DestinationStatus, UpstreamStatus

__version__ = "0.1.0"

__all__ = [
    "AffinitySettings",
    "Attempt",
    "Balancer",
    "BalancingPolicy",
    "Destination",
    "DestinationDown",
    "DestinationDraining",
    "DestinationEjected",
    "DestinationReadmitted",
    "DestinationSettings",
    "DestinationStatus",
    "DestinationUndrained",
    "DestinationUp",
    "Destinations",
    "EjectionSettings",
    "Event",
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
    "NoAvailableDestination",
    "ObservingPolicy",
    "OrderingPolicy",
    "PanicEnded",
    "PanicStarted",
    "PickRequest",
    "ProxiedResponse",
    "ProxyApp",
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
    "UpstreamsNotReady",
    "WebSocketSettings",
    "__version__",
    "proxy_app",
    "proxy_lifespan",
    "proxy_router",
    "upstreams_ready",
]

_HOMES: Final = {
    "upstream.balancer": (
        "Balancer",
        "ProxiedResponse",
    ),
    "balancing.policy": (
        "BalancingPolicy",
        "ObservingPolicy",
        "OrderingPolicy",
        "PickRequest",
    ),
    "integration.app": ("ProxyApp", "proxy_app"),
    "integration.dependency": ("Upstream",),
    "errors": (
        "Attempt",
        "Failure",
        "InvalidRequest",
        "LimitExceeded",
        "LocalResourcesExhausted",
        "NoAvailableDestination",
        "ProxyError",
        "ProxyNotStarted",
        "RequestBodyConsumed",
        "RequestBodyTimeout",
        "RequestBodyTooLarge",
        "SettingsError",
        "Side",
        "UpstreamConnectError",
        "UpstreamDisconnected",
        "UpstreamProtocolError",
        "UpstreamsNotReady",
        "UpstreamTimeout",
    ),
    "supervision.events": (
        "DestinationDown",
        "DestinationDraining",
        "DestinationEjected",
        "DestinationReadmitted",
        "DestinationUndrained",
        "DestinationUp",
        "Event",
        "LimitHit",
        "PanicEnded",
        "PanicStarted",
    ),
    "client.lease": ("Lease",),
    "integration.lifespan": ("proxy_lifespan",),
    "integration.options": ("ForwardOptions",),
    "pools.destination": ("Destination",),
    "integration.readiness": ("upstreams_ready",),
    "integration.router": ("proxy_router",),
    "settings": (
        "AffinitySettings",
        "Destinations",
        "DestinationSettings",
        "EjectionSettings",
        "ForwardedSettings",
        "HealthSettings",
        "LimitSettings",
        "RetrySettings",
        "TimeoutSettings",
        "TlsSettings",
        "UpstreamSettings",
        "WebSocketSettings",
    ),
    "upstream.status": (
        "DestinationStatus",
        "UpstreamStatus",
    ),
}
"""Where the names are, module by module."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
