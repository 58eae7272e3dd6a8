"""Settings of retries and hedging."""

from pydantic import Field

from fastapi_proxy_di.settings.durations import DurationOrZero, OptionalDuration
from fastapi_proxy_di.settings.methods import Methods
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import Count, Share
from fastapi_proxy_di.settings.statuses import StatusCodes, StatusCodesField

__all__ = ["RetrySettings"]


class RetrySettings(SettingsModel):
    """Further attempts at other destinations."""

    attempts: int = Field(
        default=1,
        ge=0,
        le=100,
        description=(
            "Extra attempts after the first (Envoy, Linkerd: 1). Failed dials do not count."
        ),
    )

    methods: Methods = Field(
        default=frozenset({"GET", "HEAD", "OPTIONS", "TRACE"}),
        validate_default=True,
        description=(
            "Methods that may be sent twice (RFC 9110 §9.2.1, fastify); others only with an"
            " ``Idempotency-Key`` or while no byte of them was written."
        ),
    )

    statuses: StatusCodesField = Field(
        default=StatusCodes(),
        validate_default=True,
        description="Responses that are retried at another destination, e.g. ``502,503``.",
    )

    refused_statuses: StatusCodesField = Field(
        default=StatusCodes(),
        validate_default=True,
        description=(
            "Responses that mean that the request was not done, e.g. ``429,503``: tried at another"
            " destination whatever the method, while the body is kept."
        ),
    )

    replay_bytes: Count = Field(
        default=65536,
        description="Bytes of a request body that are kept to send it again (Linkerd: 64 KiB).",
    )

    budget_share: Share = Field(
        default=0.2,
        description=(
            "Retries as a share of requests (Finagle, Envoy: 0.2), so that they cannot make an"
            " outage worse."
        ),
    )

    budget_minimum: Count = Field(
        default=10, description="Retries per 10 seconds that are always allowed."
    )

    backoff: DurationOrZero = Field(
        default=0.025,
        validate_default=True,
        description="Seconds before a retry, times 2ⁿ, with full jitter (Envoy: 25 ms).",
    )

    duration: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "Seconds for which requests that may be sent twice go on while no destination responds,"
            " as when the only one restarts (Caddy: ``lb_try_duration``); none for no further time."
        ),
    )

    hedge_after: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "Seconds without a response after which an idempotent request is also sent to a second"
            " destination, under the same budget; none for never."
        ),
    )
