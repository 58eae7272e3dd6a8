# --8<-- [start:imports]
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response, WebSocket

from fastapi_proxy_di import Balancer, Upstream, proxy_lifespan

app = FastAPI(lifespan=proxy_lifespan)

Backend = Annotated[Balancer, Depends(Upstream("backend"))]


# --8<-- [end:imports]
# --8<-- [start:forward]
@app.put("/items/{number}")
async def item(request: Request, backend: Backend, number: int) -> Response:
    return await backend.forward(
        request,
        f"/v2/items/{number}",
        method="POST",
        timeout=60.0,
        forward_query=False,
        additional_headers={"x-tenant": "acme"},
        override_headers={"accept": "application/json"},
        override_body=b"{}",
        override_host="items.example",
    )


@app.websocket("/live")
async def live(websocket: WebSocket, backend: Backend) -> None:
    await backend.forward_websocket(
        websocket,
        "/feed",
        subprotocols=["v1"],
        forward_query=False,
        additional_headers={"x-tenant": "acme"},
        override_headers={"origin": "http://app"},
        open_timeout=10.0,
    )


# --8<-- [end:forward]
# --8<-- [start:balancer]
@app.get("/balancer")
async def balancer(backend: Backend) -> dict[str, Any]:
    peeked = backend.peek()
    picked = backend.pick()
    return {
        "peek": peeked and peeked.url,
        "get": picked and picked.url,
        "get_all": [one.url for one in backend.destinations],
    }


@app.post("/limit")
async def limit(backend: Backend) -> list[int | None]:
    for one in backend.destinations:
        backend.configure_destination(one.url, max_requests=100)
    return [one.max_requests for one in backend.destinations]


# --8<-- [end:balancer]
# --8<-- [start:checker]
@app.get("/checker")
async def checker(backend: Backend) -> dict[str, Any]:
    times = {one.url: one.latency_ms for one in backend.available}
    return {
        "is_healthy": {one.url: one.healthy for one in backend.destinations},
        "get_healthy_targets": [one.url for one in backend.available],
        "get_response_times": times,
        "get_fastest": min(times, key=lambda url: times[url] or 0.0, default=None),
    }


@app.post("/ping-path")
async def ping_path(backend: Backend, path: str) -> str | None:
    backend.configure_health(path=path)
    return backend.health.path


@app.post("/check-all")
async def check_all(backend: Backend) -> None:
    backend.configure_health()


@app.post("/stop")
async def stop(backend: Backend) -> None:
    backend.configure_health(path=None)


# --8<-- [end:checker]
# --8<-- [start:client]
@app.get("/total")
async def total(backend: Backend) -> Any:
    return (await backend.client.get("/invoices/7")).json()["total"]


# --8<-- [end:client]
