"""Settings of active health probes."""

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fastapi_proxy_di.settings.durations import Duration, OptionalDuration
from fastapi_proxy_di.settings.headers import ProbeHeaderValues
from fastapi_proxy_di.settings.host import OptionalHost
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import AtLeastOne, Share
from fastapi_proxy_di.settings.paths import ProbePath
from fastapi_proxy_di.settings.statuses import StatusCodes, StatusCodesField
from fastapi_proxy_di.settings.text import OrNone

__all__ = ["HealthSettings"]


def _pattern(value: str | None) -> str | None:
    if value is not None:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


if TYPE_CHECKING:

    class ProbeMethod:
        """A field that accepts lower case too, and gives upper case."""

        def __get__(
            self, instance: object, owner: type | None = None
        ) -> Literal["GET", "HEAD"]: ...

        def __set__(
            self, instance: object, value: Literal["GET", "HEAD", "get", "head"]
        ) -> None: ...

else:
    ProbeMethod = Annotated[Literal["GET", "HEAD"], BeforeValidator(_upper)]


class HealthSettings(SettingsModel):
    """Active probes; they are sent when ``path`` is set."""

    path: ProbePath = Field(
        default=None,
        description=(
            "Path that is probed on each destination, joined to its base path; none for no probes."
            " The policy ``latency`` sets ``/``."
        ),
    )

    method: ProbeMethod = Field(
        default="GET",
        validate_default=True,
        description="Method of a probe; HEAD falls back to GET on 405 and 501.",
    )

    headers: ProbeHeaderValues = Field(
        default={},
        validate_default=True,
        description=(
            "Headers that every probe has, for example ``Authorization``. Values are secrets: never"
            " logged, dumped or shown."
        ),
    )

    host: OptionalHost = Field(
        default=None,
        description="Host header of probes; none for the address of the destination.",
    )

    interval: Duration = Field(
        default=15.0,
        validate_default=True,
        description="Seconds between two probes of a destination (YARP: 15).",
    )

    jitter: Share = Field(
        default=0.1,
        description=(
            "Share of the interval by which it varies at random, so that workers do not probe in"
            " step."
        ),
    )

    timeout: Duration = Field(
        default=5.0,
        validate_default=True,
        description="Seconds until a probe has failed (Traefik, Caddy: 5).",
    )

    fall: AtLeastOne = Field(
        default=2, description="Failed probes in a row until a destination is unhealthy (YARP: 2)."
    )

    rise: AtLeastOne = Field(
        default=1, description="Good probes in a row until it is healthy again (YARP: 1)."
    )

    expected: StatusCodesField = Field(
        default=StatusCodes("200-399"),
        validate_default=True,
        description="Statuses of a good probe (nginx, Traefik: 2xx and 3xx).",
    )

    unhealthy_interval: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description="Seconds between probes of an unhealthy destination; none for ``interval``.",
    )

    body_match: Annotated[str | None, AfterValidator(_pattern), OrNone] = Field(
        default=None,
        description=(
            "Regular expression that must be found in the body of a good probe; none for any body."
            " Needs the method GET."
        ),
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.body_match is not None and self.method == "HEAD":
            raise ValueError("body_match needs the method GET; a response to HEAD has no body")
        return self

    @property
    def enabled(self) -> bool:
        """Whether probes are sent."""
        return self.path is not None
