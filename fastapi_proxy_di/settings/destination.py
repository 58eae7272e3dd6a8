"""Settings of one destination, and the list of them: as text, JSON or code."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from fastapi_proxy_di.settings.host import OptionalHost
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import OptionalLimit
from fastapi_proxy_di.settings.paths import ProbePath
from fastapi_proxy_di.settings.source_schemes import source_at
from fastapi_proxy_di.settings.text import AlsoText, OrNone, split_commas
from fastapi_proxy_di.wire.addresses import Address, parse_address, shown_address
from fastapi_proxy_di.wire.source_address import SourceAddress

__all__ = ["DestinationSettings", "Destinations"]


if TYPE_CHECKING:

    class Metadata:
        """A field that accepts any mapping of texts, and gives a ``dict``."""

        def __get__(self, instance: object, owner: type | None = None) -> dict[str, str]: ...

        def __set__(self, instance: object, value: Mapping[str, str]) -> None: ...

else:
    Metadata = dict[str, str]


class DestinationSettings(SettingsModel):
    """One destination of an upstream, or a source that finds destinations.

    The other fields of a source are those of every destination that is found there. A weight and
    a tier that are found are multiplied by the source's weight, and added to its tier.
    """

    url: str = Field(
        description=(
            "The destination's address, normalised: ``http://``, ``https://``,"
            " ``http+unix://%2Frun%2Fapp.sock`` or ``asgi://package.module:app``, with a base path"
            " or without. Or a source of destinations: ``dns+http://name:port``,"
            " ``srv+http://_service._tcp.name``, ``file:///path.toml``, or a plug-in's scheme."
        )
    )

    host: OptionalHost = Field(
        default=None,
        description=(
            "Name for the Host header and for TLS; none for the host of ``url``. Set it where"
            " ``url`` has an IP address. Destinations found by DNS get the name that was looked up."
        ),
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

    @field_validator("url")
    @classmethod
    def _normalised(cls, value: str) -> str:
        source = source_at(value)
        return parse_address(value).url if source is None else source.url

    @field_validator("health_url")
    @classmethod
    def _normalised_health_url(cls, value: str | None) -> str | None:
        return None if value is None else parse_address(value).url

    @model_validator(mode="after")
    def _one_health_url(self) -> Self:
        if self.health_url is not None and self.source is not None:
            raise ValueError(
                "health_url is one address, and a source finds several; give health_path"
            )
        return self

    @cached_property
    def source(self) -> SourceAddress | None:
        """The parsed ``url`` of a source; ``None`` for a destination."""
        return source_at(self.url)

    @cached_property
    def address(self) -> Address:
        """The parsed ``url`` of a destination, with ``host``."""
        address = parse_address(self.url)
        return address if self.host is None else address.named(self.host)

    @cached_property
    def probe_address(self) -> Address:
        """The parsed ``health_url``, else ``address``."""
        if self.health_url is None:
            return self.address
        address = parse_address(self.health_url)
        if self.host is None or address.host != self.address.host:
            return address
        # The same machine at another port: its name, and the port of the probe.
        name = parse_address(f"http://{self.host}").host
        name = f"[{name}]" if ":" in name else name
        probed = parse_address(f"{address.scheme}://{name}:{address.port}")
        return address.named(probed.authority.decode("ascii"))

    @property
    def shown(self) -> str:
        """The ``url`` for logs and pages, without what may be secret."""
        return shown_address(self.url)


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
            raise ValueError(
                f"{destination.shown!r} is given twice; use 'weight' for a larger share"
            )
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
