"""Settings of upstreams: frozen models, all validation, and what a fault reads like.

Everything here ends at start: nothing below is validated, read or parsed per request.
"""

from fastapi_proxy_di.settings.destinations import Destinations, DestinationSettings
from fastapi_proxy_di.settings.durations import Duration, DurationOrZero
from fastapi_proxy_di.settings.edges import (
    AffinitySettings,
    ForwardedSettings,
    TlsSettings,
    WebSocketSettings,
)
from fastapi_proxy_di.settings.faults import (
    describe_faults,
    describe_late_fault,
    load_all,
    load_upstream,
    read_all,
    settings_error,
    unknown_variables,
)
from fastapi_proxy_di.settings.health import EjectionSettings, HealthSettings
from fastapi_proxy_di.settings.provenance import effective_sources
from fastapi_proxy_di.settings.traffic import LimitSettings, RetrySettings, TimeoutSettings
from fastapi_proxy_di.settings.upstream import POLICIES, Mention, UpstreamSettings, settings_class
from fastapi_proxy_di.settings.values import StatusCodes

__all__ = [
    "POLICIES",
    "AffinitySettings",
    "DestinationSettings",
    "Destinations",
    "Duration",
    "DurationOrZero",
    "EjectionSettings",
    "ForwardedSettings",
    "HealthSettings",
    "LimitSettings",
    "Mention",
    "RetrySettings",
    "StatusCodes",
    "TimeoutSettings",
    "TlsSettings",
    "UpstreamSettings",
    "WebSocketSettings",
    "describe_faults",
    "describe_late_fault",
    "effective_sources",
    "load_all",
    "load_upstream",
    "read_all",
    "settings_class",
    "settings_error",
    "unknown_variables",
]
