"""The httpx clients of one upstream: made when the app first asks, closed with the upstream."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, cast

import httpx

from fastapi_proxy_di.client.httpx_client import (
    CallRules,
    UpstreamTransport,
    make_client,
    timeouts_of,
)
from fastapi_proxy_di.settings import UpstreamSettings

if TYPE_CHECKING:
    import httpx2  # an extra

__all__ = ["Clients"]


class Clients:
    """One client of each library, whose requests go to the same pool.

    Any thread may ask for a client, because FastAPI calls plain ``def`` dependencies in threads.

    Args:
        rules: Gives the current rules, which each call reads once.
    """

    def __init__(self, rules: Callable[[], CallRules]) -> None:
        self._rules = rules
        self._lock = Lock()
        self._made: dict[ModuleType, httpx.AsyncClient] = {}

    @property
    def for_httpx(self) -> httpx.AsyncClient:
        """The client of httpx."""
        return self._of(httpx)

    @property
    def for_httpx2(self) -> httpx2.AsyncClient:
        """The client of httpx2.

        Raises:
            ModuleNotFoundError: The extra ``httpx2`` is not installed.
        """
        try:
            # Imported late, because httpx2 is an extra.
            import httpx2  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Balancer.httpx2_client needs the extra httpx2; run pip install"
                " 'fastapi-proxy-di[httpx2]'",
                name="httpx2",
            ) from error
        return cast("httpx2.AsyncClient", self._of(httpx2))

    def configure(self, settings: UpstreamSettings) -> None:
        """Give the clients the timeouts of changed settings; the users keep their clients."""
        for library, client in tuple(self._made.items()):
            client.timeout = timeouts_of(library, settings)

    async def aclose(self) -> None:
        """Close the clients; their users cannot."""
        for library, client in self._made.items():
            await library.AsyncClient.aclose(client)

    def _of(self, library: ModuleType) -> httpx.AsyncClient:
        with self._lock:
            client = self._made.get(library)
            if client is None:
                transport = UpstreamTransport(library, self._rules)
                settings = self._rules().settings
                client = self._made[library] = make_client(library, transport, settings)
            return client
