"""A setting that is the value of a ``Host`` header."""

from typing import Annotated

from pydantic import AfterValidator

from fastapi_proxy_di.settings.text import OrNone
from fastapi_proxy_di.wire.addresses import parse_address

__all__ = ["OptionalHost"]


def _host(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        address = parse_address(f"http://{value.strip()}")
    except ValueError:
        address = None
    if address is None or "/" in value:
        raise ValueError(
            f"{value!r} is not a host; give a name or an IP address, with or without a port,"
            " such as tenant.example:8080"
        )
    return address.authority.decode("ascii")


OptionalHost = Annotated[str | None, AfterValidator(_host), OrNone]
"""A name or an IP address, with or without a port, or none."""
