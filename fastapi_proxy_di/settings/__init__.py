"""Settings of upstreams and of the app: frozen models, all validation, and the texts of faults.

Settings are read and validated at start, never during a request.
"""

from fastapi_proxy_di.settings.affinity import AffinitySettings
from fastapi_proxy_di.settings.allowed_destinations import AllowedDestinationsSettings
from fastapi_proxy_di.settings.cluster import ClusterSettings
from fastapi_proxy_di.settings.destination import Destinations, DestinationSettings
from fastapi_proxy_di.settings.differences import Difference, differences
from fastapi_proxy_di.settings.discovery import DiscoverySettings
from fastapi_proxy_di.settings.durations import Duration, DurationOrZero
from fastapi_proxy_di.settings.ejection import EjectionSettings
from fastapi_proxy_di.settings.faults import describe_faults, describe_late_fault
from fastapi_proxy_di.settings.files import settings_files
from fastapi_proxy_di.settings.forwarded import ForwardedSettings
from fastapi_proxy_di.settings.health import HealthSettings
from fastapi_proxy_di.settings.limits import LimitSettings
from fastapi_proxy_di.settings.loading import (
    load_all,
    load_upstream,
    read_all,
    read_proxy_settings,
    settings_error,
)
from fastapi_proxy_di.settings.mention import Mention, settings_class
from fastapi_proxy_di.settings.policy import POLICIES
from fastapi_proxy_di.settings.provenance import effective_sources, overridden_fields
from fastapi_proxy_di.settings.proxy import ProxySettings
from fastapi_proxy_di.settings.retries import RetrySettings
from fastapi_proxy_di.settings.statuses import StatusCodes
from fastapi_proxy_di.settings.streams import StreamSettings
from fastapi_proxy_di.settings.telemetry import TelemetrySettings
from fastapi_proxy_di.settings.timeouts import TimeoutSettings
from fastapi_proxy_di.settings.tls import TlsSettings
from fastapi_proxy_di.settings.unknown_variables import unknown_variables
from fastapi_proxy_di.settings.upstream import UpstreamSettings
from fastapi_proxy_di.settings.websocket import WebSocketSettings

__all__ = [
    "POLICIES",
    "AffinitySettings",
    "AllowedDestinationsSettings",
    "ClusterSettings",
    "DestinationSettings",
    "Destinations",
    "Difference",
    "DiscoverySettings",
    "Duration",
    "DurationOrZero",
    "EjectionSettings",
    "ForwardedSettings",
    "HealthSettings",
    "LimitSettings",
    "Mention",
    "ProxySettings",
    "RetrySettings",
    "StatusCodes",
    "StreamSettings",
    "TelemetrySettings",
    "TimeoutSettings",
    "TlsSettings",
    "UpstreamSettings",
    "WebSocketSettings",
    "describe_faults",
    "describe_late_fault",
    "differences",
    "effective_sources",
    "load_all",
    "load_upstream",
    "overridden_fields",
    "read_all",
    "read_proxy_settings",
    "settings_class",
    "settings_error",
    "settings_files",
    "unknown_variables",
]
