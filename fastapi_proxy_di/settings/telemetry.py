"""Settings of traces and metrics."""

from typing import Literal

from pydantic import Field

from fastapi_proxy_di.settings.model import SettingsModel

__all__ = ["TelemetrySettings"]


class TelemetrySettings(SettingsModel):
    """Which traces and metrics an app's upstreams make, and which trace headers they send."""

    tracing: bool = Field(
        default=True,
        description=(
            "Whether each attempt gets a span below the current one, where a provider records."
        ),
    )

    metrics: bool = Field(
        default=True,
        description=(
            "Whether OpenTelemetry gets metrics, where a meter provider is set; Prometheus gets"
            " them all the same."
        ),
    )

    propagate: Literal["inject", "pass", "off"] = Field(
        default="inject",
        description=(
            "Trace headers towards destinations: ``inject`` those of the attempt's span by the"
            " global propagator, ``pass`` the client's, or ``off`` for none. Without spans of"
            " attempts, ``inject`` sends those of the current span."
        ),
    )

    baggage: Literal["own", "pass"] = Field(
        default="own",
        description=(
            "Baggage towards destinations where trace headers are injected: the app's ``own``"
            " entries, or ``pass`` the client's too."
        ),
    )
