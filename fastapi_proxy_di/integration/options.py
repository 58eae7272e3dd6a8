"""Per-request choices of a proxied route, given by a dependency."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi_proxy_di.wire.headers import HeaderFields


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOptions:
    """What a dependency given as ``proxy_router(options=...)`` returns.

    Attributes:
        headers: Set by name on the request upstream, e.g. an exchanged token.
        timeout: Seconds in all, instead of ``timeouts.total``; for a WebSocket, for its
            handshake.
        affinity_key: What the policy ``hash`` keeps together, instead of ``hash_key``.
        override_host: Host header instead of the destination's.
    """

    headers: HeaderFields | None = None
    timeout: float | None = None
    affinity_key: str | None = None
    override_host: str | None = None
