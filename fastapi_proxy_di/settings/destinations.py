"""Destinations as settings: one address each, with its weight and limits.

Knows how they are written (text, JSON, code), not what becomes of them.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.values import AlsoText, OrNone, split_commas
from fastapi_proxy_di.wire.urls import Address, parse_address

__all__ = ["DestinationSettings", "Destinations"]


def probe_path(value: str | None) -> str | None:
    """Check the path of a probe: raw, starting with a slash, a query allowed.

    Raises:
        ValueError: It is not.
    """
    if value is not None and (
        not value.startswith("/")
        or not value.isascii()
        or any(c <= " " or c in "#\x7f" for c in value)
    ):
        raise ValueError(f"{value!r} is not a path; it starts with '/' and is percent-encoded")
    return value


class DestinationSettings(SettingsModel):
    """One destination of an upstream."""

    url: str
    """Its address, normalised: ``http://``, ``https://``, ``http+unix://%2Frun%2Fapp.sock``
    or ``asgi://package.module:app``, with a base path or without."""

    weight: Annotated[float, Field(gt=0, le=65535, allow_inf_nan=False)] = 1
    """Its share of the traffic against the others' (nginx: 1)."""

    max_requests: Annotated[int | None, Field(ge=1), OrNone] = None
    """Requests per ``max_requests_window``; none for no limit."""

    max_in_flight: Annotated[int | None, Field(ge=1), OrNone] = None
    """Requests and WebSockets under way at once; none for no limit (nginx ``max_conns``)."""

    health_path: Annotated[str | None, AfterValidator(probe_path), OrNone] = None
    """Path of its probes instead of ``health.path``."""

    health_url: Annotated[str | None, OrNone] = None
    """Address that its probes go to instead of ``url``, e.g. another port."""

    tier: Annotated[int, Field(ge=0)] = 0
    """Priority: tier 1 gets traffic when tier 0 has nothing available, and so on."""

    metadata: dict[str, str] = Field(default_factory=dict)
    """Texts for policies and transforms of one's own; nothing here reads them."""

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
            Annotated[DestinationSettings, BeforeValidator(_from_text), AlsoText("Its address.")],
            ...,
        ],
        BeforeValidator(_split),
        AfterValidator(_distinct),
        AlsoText("Comma-separated addresses."),
    ]
"""What a class may write: addresses and ``DestinationSettings``; a tuple of the latter
after validation."""
