"""Settings of limits: requests at once, body and header sizes, idle connections."""

from typing import Annotated

from pydantic import Field

from fastapi_proxy_di.settings.durations import DurationOrZero
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import AtLeastOne, Count, OptionalLimit
from fastapi_proxy_di.settings.text import OrNone

__all__ = ["LimitSettings"]


class LimitSettings(SettingsModel):
    """Limits of requests, connections and bytes for one upstream."""

    max_in_flight: OptionalLimit = Field(
        default=None, description="Requests and WebSockets under way at once; none for no limit."
    )

    queue: Count = Field(
        default=0,
        description=(
            "Requests that may wait until the upstream and one of its destinations have a place;"
            " more get 503."
        ),
    )

    queue_timeout: DurationOrZero = Field(
        default=1.0,
        validate_default=True,
        description="Seconds that a request may wait in the queue.",
    )

    max_body_bytes: Annotated[int | None, Field(ge=0), OrNone] = Field(
        default=None, description="Largest request body; larger ones get 413. None for no limit."
    )

    replay_total_bytes: Count = Field(
        default=64 << 20,
        description=(
            "Bytes of request bodies that a process keeps for ``streams.replay_bytes``, of all its"
            " upstreams; beyond them ``retries.replay_bytes`` holds. 64 MiB."
        ),
    )

    max_response_header_bytes: int = Field(
        default=65536,
        ge=1024,
        description="Largest header block of a response; a larger one becomes 502 (YARP: 64 KiB).",
    )

    idle_connections: Count = Field(
        default=100,
        description=(
            "Idle connections kept per destination for longer than a second. Connections in use are"
            " never capped."
        ),
    )

    idle_seconds: DurationOrZero = Field(
        default=4.0,
        validate_default=True,
        description=(
            "Seconds that an idle connection is kept: less than the 5 after which uvicorn and many"
            " others close it."
        ),
    )

    dynamic_destinations: AtLeastOne = Field(
        default=1000,
        description=(
            "Dynamic destinations in use at once, where ``allowed_destinations`` allows some;"
            " requests to further ones get 503."
        ),
    )

    expect_continue: DurationOrZero = Field(
        default=1.0,
        validate_default=True,
        description=(
            "Seconds to wait for the destination's 100 before the body is read all the same (Go:"
            " 1)."
        ),
    )
