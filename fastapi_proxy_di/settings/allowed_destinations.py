"""Which dynamic destinations there may be: addresses that code may give for one request."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.networks import Networks
from fastapi_proxy_di.settings.text import AlsoText, split_commas
from fastapi_proxy_di.wire.dynamic_address import Origin, parse_origin
from fastapi_proxy_di.wire.reachable import holds_other_addresses, refusal

__all__ = ["AllowedDestinationsSettings"]


def _origin(value: str) -> str:
    _ = parse_origin(value)
    return value.strip()


if TYPE_CHECKING:

    class Origins:
        """A field that accepts text and origins, and gives a tuple of origins."""

        def __get__(self, instance: object, owner: type | None = None) -> tuple[str, ...]: ...

        def __set__(self, instance: object, value: str | Iterable[str]) -> None: ...

else:
    Origins = Annotated[
        tuple[Annotated[str, AfterValidator(_origin)], ...],
        BeforeValidator(split_commas),
        AlsoText("Comma-separated origins."),
    ]
    """A tuple of origins."""


class AllowedDestinationsSettings(SettingsModel):
    """Dynamic destinations that ``forward(destination=...)`` may give; by default none."""

    origins: Origins = Field(
        default=(),
        validate_default=True,
        description=(
            "Origins that may be given, such as ``http://*.notebooks.svc:8888``: ``*`` is the whole"
            " leftmost label, or any port. A host name is allowed only if an origin matches it."
        ),
    )

    networks: Networks = Field(
        default=(),
        validate_default=True,
        description=(
            "Networks (CIDR) that every IP address must lie in, given or resolved from a name. A"
            " literal IP address needs a network or an origin. Loopback, link-local, multicast,"
            " unspecified, reserved and metadata addresses are refused unless a network within"
            " their range is listed, such as ``127.0.0.0/8``."
        ),
    )

    credentials: bool = Field(
        default=False,
        description=(
            "Whether the client's ``Cookie`` and ``Authorization`` and the upstream's"
            " ``request_headers`` are sent there."
        ),
    )

    @field_validator("networks", mode="after")
    @classmethod
    def _judged(
        cls, value: tuple[IPv4Network | IPv6Network, ...]
    ) -> tuple[IPv4Network | IPv6Network, ...]:
        for network in value:
            if holds_other_addresses(network):
                raise ValueError(
                    f"{network} holds IPv4 addresses in IPv6 form, which are judged as IPv4; give"
                    " the IPv4 network"
                )
        return value

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        for origin in self.parsed_origins:
            if origin.any_label:
                continue
            try:
                reason = refusal(origin.host, self.networks)
            except ValueError:
                continue  # a name
            if reason is not None:
                raise ValueError(
                    f"origins has {origin.host}, which is refused: {reason}; list its network in"
                    " 'networks'"
                )
        return self

    @property
    def parsed_origins(self) -> tuple[Origin, ...]:
        """The origins, to compare addresses with."""
        return tuple(map(parse_origin, self.origins))

    @property
    def some(self) -> bool:
        """Whether any address may be given."""
        return bool(self.origins or self.networks)
