"""Settings of active probes and of ejection from live traffic."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fastapi_proxy_di.settings.destinations import probe_path
from fastapi_proxy_di.settings.durations import Duration
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.values import OrNone, StatusCodes

__all__ = ["EjectionSettings", "HealthSettings"]

Share = Annotated[float, Field(ge=0, le=1)]


def _pattern(value: str | None) -> str | None:
    if value is not None:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class HealthSettings(SettingsModel):
    """Active probes; they are sent when ``path`` is set."""

    path: Annotated[str | None, AfterValidator(probe_path), OrNone] = None
    """Path that is probed on each destination, joined to its base path; none for no probes.
    The policy ``latency`` sets ``/``."""

    method: Annotated[Literal["GET", "HEAD"], BeforeValidator(_upper)] = "GET"
    """Method of a probe; HEAD falls back to GET on 405 and 501."""

    interval: Duration = 15.0
    """Seconds between two probes of a destination (YARP: 15)."""

    jitter: Share = 0.1
    """Share of the interval by which it varies at random, so that workers do not probe in step."""

    timeout: Duration = 5.0
    """Seconds until a probe has failed (Traefik, Caddy: 5)."""

    fall: Annotated[int, Field(ge=1)] = 2
    """Failed probes in a row until a destination is unhealthy (YARP: 2)."""

    rise: Annotated[int, Field(ge=1)] = 1
    """Good probes in a row until it is healthy again (YARP: 1)."""

    expected: StatusCodes = StatusCodes("200-399")
    """Statuses of a good probe (nginx, Traefik: 2xx and 3xx)."""

    unhealthy_interval: Annotated[Duration | None, OrNone] = None
    """Seconds between probes of an unhealthy destination; none for ``interval``."""

    body_match: Annotated[str | None, AfterValidator(_pattern), OrNone] = None
    """Regular expression that must be found in the body of a good probe; none for any body.
    Needs the method GET."""

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.body_match is not None and self.method == "HEAD":
            raise ValueError("body_match needs the method GET; an answer to HEAD has no body")
        return self

    @property
    def enabled(self) -> bool:
        """Whether probes are sent."""
        return self.path is not None


class EjectionSettings(SettingsModel):
    """Removal for a while of destinations that fail live traffic."""

    enabled: bool = True
    """Whether live traffic ejects."""

    window: Duration = 60.0
    """Seconds over which failures are counted (YARP: 60)."""

    minimum_requests: Annotated[int, Field(ge=1)] = 10
    """Requests within the window before the rate says anything (YARP: 10)."""

    failure_rate: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of failures within the window that ejects (YARP: 0.3)."""

    consecutive: Annotated[int, Field(ge=1)] = 5
    """Failures in a row that eject (Envoy: 5)."""

    base_time: Duration = 30.0
    """Seconds out, times the number of ejections so far (Envoy: 30)."""

    max_time: Duration = 300.0
    """Longest time out in seconds (Envoy: 300)."""

    max_share: Share = 0.5
    """Largest share of the destinations that is out at once; never the only one. Envoy's 0.1
    would never eject one of three."""

    statuses: StatusCodes = StatusCodes()
    """Answers that count as failures beside transport failures, e.g. ``502,503``. Empty, because
    a 500 says more about a request than about a destination (YARP)."""

    respect_retry_after: bool = False
    """Whether ``Retry-After`` on a 429 or 503 takes its destination out for that time, at most
    ``max_time``."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_time < self.base_time:
            raise ValueError("max_time is less than base_time; make it at least as long")
        return self
