"""Settings of discovery: how sources of destinations are asked, and what holds when they fail."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fastapi_proxy_di.settings.durations import DurationOrZero, OptionalDuration
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.nameservers import parse_nameserver
from fastapi_proxy_di.settings.text import AlsoText, split_commas

__all__ = ["DiscoverySettings"]


def _name_server(value: str) -> str:
    _ = parse_nameserver(value)
    return value


if TYPE_CHECKING:
    from collections.abc import Sequence

    class NameServers:
        """A field that accepts addresses or a text with commas, and gives a tuple."""

        def __get__(self, instance: object, owner: type | None = None) -> tuple[str, ...]: ...

        def __set__(self, instance: object, value: Sequence[str] | str) -> None: ...

else:
    NameServers = Annotated[
        tuple[Annotated[str, AfterValidator(_name_server)], ...],
        BeforeValidator(split_commas),
        AlsoText("Comma-separated IP addresses."),
    ]


class DiscoverySettings(SettingsModel):
    """How sources among ``destinations`` are asked: DNS names, files and plug-ins."""

    refresh: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "Seconds between two look-ups, varied by 10 %; none for the TTL of the records, within"
            " 1 to 30 s. A failed dial to a found address looks up again at once."
        ),
    )

    nameservers: NameServers = Field(
        default=(),
        validate_default=True,
        description=(
            "Name servers to ask instead of those of ``/etc/resolv.conf``: IP addresses, with a"
            " port or without."
        ),
    )

    keep: DurationOrZero = Field(
        default=300.0,
        validate_default=True,
        description="Seconds that the last destinations of a source serve while it fails.",
    )

    on_empty: Literal["keep", "drop"] = Field(
        default="keep",
        description=(
            "When a source finds nothing (DNS: no such name, or no records): ``keep`` treats that"
            " as a failure, ``drop`` removes its destinations at once."
        ),
    )

    required: bool = Field(
        default=True,
        description=(
            "Whether the start fails when a source finds nothing; if not, the upstream starts with"
            " the destinations that it has."
        ),
    )

    family: Literal["auto", "ipv4", "ipv6", "both"] = Field(
        default="auto",
        description=(
            "Which addresses of a name are used; ``auto`` uses the families that the machine has a"
            " route for."
        ),
    )
