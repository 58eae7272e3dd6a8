"""Settings of timeouts."""

from pydantic import Field

from fastapi_proxy_di.settings.durations import Duration, OptionalDuration
from fastapi_proxy_di.settings.model import SettingsModel

__all__ = ["TimeoutSettings"]


class TimeoutSettings(SettingsModel):
    """Timeouts of requests and connections, in seconds."""

    connect: Duration = Field(
        default=5.0,
        validate_default=True,
        description="For a connection, with the look-up of the name and TLS (Envoy: 5).",
    )

    resolve: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "For the look-up of a destination's name, within ``connect``; none for as long as"
            " ``connect``."
        ),
    )

    activity: Duration = Field(
        default=100.0,
        validate_default=True,
        description=(
            "Without any byte either way, in a request (YARP: 100). WebSockets have their pings."
        ),
    )

    first_byte: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "From the end of the request until the response's first byte; none for no limit."
        ),
    )

    ping: OptionalDuration = Field(
        default=15.0,
        validate_default=True,
        description=(
            "HTTP/2 towards destinations: silence after a request or within its response before a"
            " PING, and time for the PING's response (Go's PingTimeout: 15); none for no PING."
        ),
    )

    total: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "For the whole exchange, retries included; none for no limit, as streams have no end."
        ),
    )
