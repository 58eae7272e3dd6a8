"""Settings of ejection from live traffic."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fastapi_proxy_di.settings.durations import Duration
from fastapi_proxy_di.settings.headers import header_token
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import AtLeastOne, Share
from fastapi_proxy_di.settings.statuses import StatusCodes, StatusCodesField
from fastapi_proxy_di.settings.text import OrNone

__all__ = ["EjectionSettings"]


def _key(value: str | None) -> str | None:
    if value is None:
        return None
    kind, _, name = value.partition(":")
    if kind in ("header", "query", "body") and name:
        return f"header:{header_token(name)}" if kind == "header" else value
    raise ValueError(
        "is not a place of a key; use header:<name>, query:<name> or body:<field of the JSON body>"
    )


class EjectionSettings(SettingsModel):
    """Removal for a while of destinations that fail live traffic."""

    enabled: bool = Field(
        default=True, description="Whether failures of live traffic eject destinations."
    )

    window: Duration = Field(
        default=60.0,
        validate_default=True,
        description="Seconds over which failures are counted (YARP: 60).",
    )

    minimum_requests: AtLeastOne = Field(
        default=10,
        description="Requests within the window before the failure rate counts (YARP: 10).",
    )

    failure_rate: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="Share of failures within the window that ejects (YARP: 0.3).",
    )

    consecutive: AtLeastOne = Field(
        default=5,
        description=(
            "Failures in a row that eject (Envoy: 5). Responses that break off are a row of their"
            " own, which ends when a response ends without breaking off."
        ),
    )

    base_time: Duration = Field(
        default=30.0,
        validate_default=True,
        description="Seconds of an ejection, times the number of ejections so far (Envoy: 30).",
    )

    max_time: Duration = Field(
        default=300.0,
        validate_default=True,
        description="Longest ejection in seconds (Envoy: 300).",
    )

    max_share: Share = Field(
        default=0.5,
        description=(
            "Largest share of the destinations that is ejected at once; never the only one. Envoy's"
            " 0.1 would never eject one of three."
        ),
    )

    statuses: StatusCodesField = Field(
        default=StatusCodes(),
        validate_default=True,
        description=(
            "Responses that count as failures beside transport failures, e.g. ``502,503``. Empty,"
            " because a 500 says more about a request than about a destination (YARP)."
        ),
    )

    respect_retry_after: bool = Field(
        default=False,
        description=(
            "Whether ``Retry-After`` on a 429 or 503 ejects its destination for that time, at most"
            " ``max_time``, also the last one and in panic. Off, because one client over its quota"
            " would take the destination from all."
        ),
    )

    key: Annotated[str | None, AfterValidator(_key), OrNone] = Field(
        default=None,
        description=(
            "Where requests have a key, such as an API key or a model: ``header:<name>``,"
            " ``query:<name>`` or ``body:<field>``. A response with one of ``key_statuses`` then"
            " keeps requests with the key from its destination for the time of its"
            " ``Retry-After``, else ``base_time``, at most ``max_time``; other requests still go"
            " there. None for off."
        ),
    )

    key_statuses: StatusCodesField = Field(
        default=StatusCodes("429,401,403"),
        validate_default=True,
        description="Responses that refuse the ``key`` of a request, not the request's host.",
    )

    shared: Literal["votes", "off"] = Field(
        default="votes",
        description=(
            "With ``cluster.store``: ``votes`` ejects in all processes what at least two of them,"
            " and at least half of those with requests to the destination, have ejected; ``off``"
            " leaves ejections to each process."
        ),
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_time < self.base_time:
            raise ValueError("max_time is less than base_time; make it at least as long")
        return self
