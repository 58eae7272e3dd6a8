"""Settings of WebSockets towards destinations."""

from fastapi_proxy_di.settings.durations import Duration, OptionalDuration
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import OptionalLimit

__all__ = ["WebSocketSettings"]


class WebSocketSettings(SettingsModel):
    """WebSockets towards destinations."""

    max_message_bytes: OptionalLimit = None
    """Largest message from a destination; none for no limit. The other way the server's own
    limit holds (uvicorn: 16 MiB)."""

    ping_interval: OptionalDuration = 20.0
    """Seconds between pings, which keep idle tunnels open (uvicorn: 20); none for no pings."""

    ping_timeout: OptionalDuration = 20.0
    """Seconds without a pong until the tunnel is broken (uvicorn: 20); none for never."""

    open_timeout: Duration = 10.0
    """Seconds for the handshake (websockets: 10)."""

    compression: bool = False
    """Whether permessage-deflate is offered to destinations."""
