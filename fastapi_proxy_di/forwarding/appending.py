"""``forwarded.mode=append`` behind a server that has taken the peer's statements for itself.

uvicorn puts the client that ``X-Forwarded-For`` names in the place of the peer, with port 0.
What is appended then is that client once more, and whether the peer is trusted can no longer
be told. One record says so; only this mode pays for the look.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from fastapi_proxy_di.forwarding.outbound import Outbound, OutboundBuilder, Overrides

_logger = logging.getLogger("fastapi_proxy_di.forwarding")


class AppendingBuilder(OutboundBuilder):
    """A builder that looks, once, whether the peer is the real one.

    Args:
        upstream: Name, for the record.
        **arguments: As for ``OutboundBuilder``.
    """

    def __init__(self, upstream: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._upstream = upstream
        self._told = False

    def build(
        self,
        scope: Scope,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None = None,
        *,
        drop: Callable[[bytes], bool] | None = None,
    ) -> Outbound:
        client = scope.get("client")
        if client and client[1] == 0 and not self._told:
            self._told = True
            _logger.warning(
                "%s: forwarded.mode is append, but the server has replaced the peer's address "
                "by one it was told (client port 0); start uvicorn with --no-proxy-headers, or "
                "use the mode set",
                self._upstream,
                extra={"upstream": self._upstream},
            )
        return super().build(scope, path, prefix, overrides, drop=drop)
