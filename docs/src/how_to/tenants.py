from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response, WebSocket

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)


async def upstream_of_tenant(
    x_tenant: Annotated[str, Header()],
    shared: Annotated[Balancer, Depends(Upstream("shared"))],
    acme: Annotated[Balancer, Depends(Upstream("acme"))],
) -> Balancer:
    if x_tenant not in ("acme", "small", "tiny"):  # or ask the database
        raise HTTPException(403)
    return acme if x_tenant == "acme" else shared


TenantUpstream = Annotated[Balancer, Depends(upstream_of_tenant)]


@app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def forward(request: Request, upstream: TenantUpstream) -> Response:
    return await upstream.forward(request)


@app.websocket("/{path:path}")
async def tunnel(websocket: WebSocket, upstream: TenantUpstream) -> None:
    await upstream.forward_websocket(websocket)
