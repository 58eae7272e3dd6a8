"""Settings of WebSockets towards destinations."""

from pydantic import Field

from fastapi_proxy_di.settings.durations import Duration, OptionalDuration
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import OptionalLimit

__all__ = ["WebSocketSettings"]


class WebSocketSettings(SettingsModel):
    """WebSockets towards destinations."""

    max_message_bytes: OptionalLimit = Field(
        default=16 * 1024 * 1024,
        description=(
            "Largest message in bytes, in both directions (uvicorn: 16 MiB); none for no limit. A"
            " larger one ends the tunnel with 1009. A client's messages have the server's own limit"
            " as well."
        ),
    )

    ping_interval: OptionalDuration = Field(
        default=20.0,
        validate_default=True,
        description=(
            "Seconds between pings, which keep idle tunnels open (uvicorn: 20); none for no pings."
        ),
    )

    ping_timeout: OptionalDuration = Field(
        default=20.0,
        validate_default=True,
        description=(
            "Seconds without a pong until the tunnel is broken (uvicorn: 20); none for never."
        ),
    )

    open_timeout: Duration = Field(
        default=10.0,
        validate_default=True,
        description="Seconds for the handshake (websockets: 10).",
    )

    compression: bool = Field(
        default=False, description="Whether permessage-deflate is offered to destinations."
    )
