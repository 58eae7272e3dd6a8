"""Settings of one destination, and the list of them: as text, JSON or code."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import OptionalLimit
from fastapi_proxy_di.settings.paths import ProbePath
from fastapi_proxy_di.settings.text import AlsoText, OrNone, split_commas
from fastapi_proxy_di.wire.addresses import Address, parse_address

__all__ = ["DestinationSettings", "Destinations"]


if TYPE_CHECKING:

    class Metadata:
        """A field that accepts any mapping of texts, and gives a ``dict``."""

        def __get__(self, instance: object, owner: type | None = None) -> dict[str, str]: ...

        def __set__(self, instance: object, value: Mapping[str, str]) -> None: ...

else:
    Metadata = dict[str, str]


class DestinationSettings(SettingsModel):
    """One destination of an upstream."""

    url: str = Field(
        description=(
            "The destination's address, normalised: ``http://``, ``https://``,"
            " ``http+unix://%2Frun%2Fapp.sock`` or ``asgi://package.module:app``, with a base path"
            " or without."
        )
    )

    weight: float = Field(
        default=1,
        gt=0,
        le=65535,
        allow_inf_nan=False,
        description="Share of the traffic, relative to the other destinations' weights (nginx: 1).",
    )

    max_requests: OptionalLimit = Field(
        default=None, description="Requests per ``max_requests_window``; none for no limit."
    )

    max_in_flight: OptionalLimit = Field(
        default=None,
        description=(
            "Requests and WebSockets under way at once; none for no limit (nginx ``max_conns``)."
        ),
    )

    health_path: ProbePath = Field(
        default=None, description="Path that is probed instead of ``health.path``."
    )

    health_url: Annotated[str | None, OrNone] = Field(
        default=None, description="Address that is probed instead of ``url``, e.g. another port."
    )

    tier: int = Field(
        default=0,
        ge=0,
        description="Priority: tier 1 gets traffic when tier 0 has nothing available, and so on.",
    )

    metadata: Metadata = Field(
        default_factory=dict,
        validate_default=True,
        description="Texts for your own policies and transforms; the proxy does not read them.",
    )

    @field_validator("url", "health_url")
    @classmethod
    def _normalised(cls, value: str | None) -> str | None:
        return None if value is None else parse_address(value).url

    @cached_property
    def address(self) -> Address:
        """The parsed ``url``."""
        return parse_address(self.url)

    @cached_property
    def probe_address(self) -> Address:
        """The parsed ``health_url``, else ``address``."""
        return self.address if self.health_url is None else parse_address(self.health_url)


def _from_text(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


def _split(value: object) -> object:
    if isinstance(value, DestinationSettings | dict):
        return [value]
    return split_commas(value)


def _distinct(value: tuple[DestinationSettings, ...]) -> tuple[DestinationSettings, ...]:
    if not value:
        raise ValueError("is empty; give at least one address, e.g. http://10.0.0.1:8080")
    seen: set[str] = set()
    for destination in value:
        if destination.url in seen:
            raise ValueError(f"{destination.url!r} is given twice; use 'weight' for a larger share")
        seen.add(destination.url)
    return value


if TYPE_CHECKING:
    Destinations: TypeAlias = Sequence[str | DestinationSettings]
else:
    Destinations = Annotated[
        tuple[
            Annotated[
                DestinationSettings,
                BeforeValidator(_from_text),
                AlsoText("The destination's address."),
            ],
            ...,
        ],
        BeforeValidator(_split),
        AfterValidator(_distinct),
        AlsoText("Comma-separated addresses."),
    ]
"""Addresses and ``DestinationSettings``, as a class may write them; a tuple of
``DestinationSettings`` after validation."""
