"""The second upstream of a mount: ``proxy_router("billing", fallback="archive")``.

FastAPI evaluates the annotations when the app runs, so they are not postponed.
"""

from typing import NamedTuple

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from fastapi_proxy_di.forwarding.fallback import FallbackRule
from fastapi_proxy_di.forwarding.overrides import Overrides
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.lifespan import balancer_of
from fastapi_proxy_di.integration.mentions import is_overridden
from fastapi_proxy_di.integration.stand_ins import forward_by_public_name, is_real, solved
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.client_request import Fallback

__all__ = ["MountFallback"]


class MountFallback(NamedTuple):
    """The second upstream of a mount.

    Attributes:
        upstream: The upstream.
        rule: Which requests it gets.
    """

    upstream: Upstream
    rule: FallbackRule

    def of(self) -> Fallback:
        """Give what forwards to the upstream."""
        upstream = self.upstream

        async def forward(
            request: Request,
            path: bytes,
            prefix: bytes,
            overrides: Overrides | None,
            affinity_key: str | None,
        ) -> Response:
            app = request.scope["app"]
            if not (app.dependency_overrides and is_overridden(app, upstream.name)):
                forwarder = balancer_of(app, upstream.name).forwarder
                return await forwarder.request(request, path, prefix, overrides, affinity_key)

            async def forward_to(balancer: Balancer = Depends(upstream)) -> Response:
                if not is_real(balancer):
                    return await forward_by_public_name(balancer, request, path, None, overrides)
                return await balancer.forwarder.request(
                    request, path, prefix, overrides, affinity_key
                )

            return await solved(forward_to, request)

        return Fallback(self.rule, forward)
