"""The response that ``Balancer.forward`` gives: a Starlette ``Response``."""

from __future__ import annotations

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fastapi_proxy_di.forwarding.response import LocalResponse, UpstreamResponse
from fastapi_proxy_di.transport.protocol import Headers

__all__ = ["ProxiedResponse"]


class ProxiedResponse(Response):
    """An upstream's response whose head has arrived; its body is streamed when it is sent.

    ``status_code`` and ``headers`` may be changed before it is sent. A response that is not sent
    is closed at the end of the request; ``aclose`` closes it at once.
    """

    def __init__(self, response: UpstreamResponse | LocalResponse) -> None:
        self._response = response
        self.status_code: int = response.status
        self.raw_headers: Headers = response.headers
        self.background: BackgroundTask | None = None
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to the client; called by Starlette."""
        self._response.status = self.status_code
        self._response.headers = self.raw_headers
        await self._response(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def aclose(self) -> None:
        """Drop the response and end its exchange at once."""
        await self._response.aclose()
