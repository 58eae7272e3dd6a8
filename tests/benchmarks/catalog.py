"""The tables of contenders and loads of the benchmarks."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from tests.benchmarks.wire_format import POST_BODY_BYTES


class Kind(Enum):
    """Kind of a load; each contender lists the kinds that it can serve."""

    GET = "get"
    POST = "post"
    DOWNLOAD = "download"
    UPLOAD = "upload"
    EVENTS = "sse"
    ECHO = "ws"
    IDLE = "ws-idle"
    MANY = "destinations"


class Origin(Enum):
    """Server behind the gateways."""

    NGINX = "nginx"
    ASGI = "asgi"
    MANY = "many"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One gateway.

    Attributes:
        name: Short name for the command line and the results.
        title: Name in the table.
        app: `module:attribute` under `contenders`; `None` is nginx.
        kinds: Loads that it can serve; none for what only `instructions` counts.
        packages: Requirements installed for it alone, without their dependencies.
        destinations: Addresses of its upstream.
        environment: Environment variables of its own.
        store: Whether it has a Redis server as `cluster.store`.
        commit: Commit of this repository whose package it runs; `None` for the files as they are.
    """

    name: str
    title: str
    app: str | None
    kinds: frozenset[Kind]
    packages: tuple[str, ...] = ()
    destinations: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    store: bool = False
    commit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load.

    Attributes:
        name: Short name for the command line and the results.
        title: Name in the table.
        kind: What it does.
        origin: Server behind the gateways.
        unit: What the CPU time is divided by.
        reference: Contender whose cost is 1 in the table.
        connections: Concurrent connections, streams or tunnels.
        path: Request target.
        body_bytes: Size of the request body.
    """

    name: str
    title: str
    kind: Kind
    origin: Origin
    unit: str
    reference: str
    connections: int
    path: str
    body_bytes: int = 0


_ALL: Final = frozenset(Kind) - {Kind.MANY}
_HTTP: Final = _ALL - {Kind.ECHO, Kind.IDLE}
_SMALL: Final = frozenset({Kind.GET, Kind.POST})
_STREAMS: Final = frozenset({Kind.UPLOAD, Kind.EVENTS, Kind.ECHO, Kind.IDLE})

CONTENDERS: Final = (
    Contender(
        name="asgi",
        title="uvicorn, bare ASGI app (no upstream)",
        app="asgi:app",
        kinds=_SMALL | _STREAMS,
    ),
    Contender(
        name="fastapi",
        title="FastAPI endpoint, a constant (no upstream)",
        app="fastapi_constant:app",
        kinds=_SMALL,
    ),
    Contender(
        name="fastapi-depends",
        title="FastAPI endpoint, a constant, one Depends (no upstream)",
        app="fastapi_depends:app",
        kinds=_SMALL,
    ),
    Contender(
        name="fastapi-empty",
        title="FastAPI endpoint, a constant, one Depends that does nothing (no upstream)",
        app="fastapi_empty:app",
        kinds=frozenset(),
    ),
    Contender(
        name="limited",
        title="FastAPI endpoint, a constant, rate_limit in memory (no upstream)",
        app="limited:app",
        kinds=frozenset(),
    ),
    Contender(
        name="limited-store",
        title="FastAPI endpoint, a constant, rate_limit through Redis (no upstream)",
        app="limited:app",
        kinds=frozenset(),
        store=True,
    ),
    Contender(
        name="router",
        title="fastapi-proxy-di, proxy_router",
        app="router:app",
        kinds=_ALL,
    ),
    Contender(
        name="router-store",
        title="fastapi-proxy-di, proxy_router, with a store",
        app="router:app",
        kinds=frozenset(),
        store=True,
    ),
    Contender(
        name="router-depends",
        title="fastapi-proxy-di, proxy_router with one Depends",
        app="router_depends:app",
        kinds=_SMALL,
    ),
    Contender(
        name="forward",
        title="fastapi-proxy-di, billing.forward in an endpoint",
        app="forward:app",
        kinds=_ALL - {Kind.IDLE},
    ),
    Contender(
        name="mount",
        title="fastapi-proxy-di, proxy_app mounted in a FastAPI app",
        app="mount:app",
        kinds=_ALL,
    ),
    Contender(
        name="alone",
        title="fastapi-proxy-di, proxy_app by itself",
        app="alone:app",
        kinds=_ALL,
    ),
    Contender(
        name="serve",
        title="fastapi-proxy-di serve",
        app="serve:app",
        kinds=_SMALL,
    ),
    Contender(
        name="fastapi-cors",
        title="FastAPI endpoint, a constant, behind CORSMiddleware (no upstream)",
        app="behind_cors:endpoint",
        kinds=frozenset({Kind.GET}),
    ),
    Contender(
        name="router-cors",
        title="fastapi-proxy-di, proxy_router behind CORSMiddleware",
        app="behind_cors:router",
        kinds=frozenset({Kind.GET}),
    ),
    Contender(
        name="mount-cors",
        title="fastapi-proxy-di, mounted proxy_app behind CORSMiddleware",
        app="behind_cors:mount",
        kinds=frozenset({Kind.GET}),
    ),
    Contender(
        name="fastapi-telemetry",
        title="FastAPI endpoint, a constant, tracing on (no upstream)",
        app="behind_telemetry:endpoint",
        kinds=frozenset({Kind.GET}),
    ),
    Contender(
        name="router-telemetry",
        title="fastapi-proxy-di, proxy_router, tracing on",
        app="behind_telemetry:router",
        kinds=frozenset({Kind.GET}),
    ),
    Contender(
        name="mount-telemetry",
        title="fastapi-proxy-di, mounted proxy_app, tracing on",
        app="behind_telemetry:mount",
        kinds=frozenset({Kind.GET}),
    ),
    Contender(
        name="router-server-spans",
        title="fastapi-proxy-di, proxy_router, tracing on, without spans of attempts",
        app="behind_telemetry:router",
        kinds=frozenset({Kind.GET}),
        environment=(
            ("FASTAPI_PROXY_TELEMETRY__TRACING", "false"),
            ("FASTAPI_PROXY_TELEMETRY__PROPAGATE", "pass"),
        ),
    ),
    Contender(
        name="router-own-spans",
        title="fastapi-proxy-di, proxy_router, tracing on, spans of requests by a small middleware",
        app="behind_telemetry:own_spans",
        kinds=frozenset({Kind.GET}),
    ),
    Contender(
        name="router-metrics",
        title="fastapi-proxy-di, proxy_router, meter provider set",
        app="behind_telemetry:metrics",
        kinds=frozenset({Kind.GET}),
    ),
    Contender(
        name="router-server-metrics",
        title="fastapi-proxy-di, proxy_router, meter provider set, without metrics of attempts",
        app="behind_telemetry:metrics",
        kinds=frozenset({Kind.GET}),
        environment=(("FASTAPI_PROXY_TELEMETRY__METRICS", "false"),),
    ),
    Contender(
        name="router-collector",
        title="fastapi-proxy-di, proxy_router, metrics for Prometheus",
        app="behind_collector:app",
        kinds=frozenset({Kind.GET}),
    ),
    Contender(
        name="reverse-proxy-0.1.1",
        title="fastapi-reverse-proxy 0.1.1",
        app="reverse_proxy_0_1_1:app",
        kinds=_ALL,
        packages=("fastapi-reverse-proxy==0.1.1",),
    ),
    Contender(
        name="reverse-proxy-0.4.0",
        title="fastapi-reverse-proxy 0.4.0",
        app="reverse_proxy_0_4_0:app",
        kinds=_ALL,
        packages=("fastapi-reverse-proxy==0.4.0",),
    ),
    Contender(
        name="proxy-lib",
        title="fastapi-proxy-lib 0.3.0",
        app="proxy_lib:app",
        kinds=_ALL,
        packages=("fastapi-proxy-lib==0.3.0", "httpx-ws==0.9.0", "wsproto>=1.2"),
    ),
    Contender(
        name="aiohttp",
        title="aiohttp client in a FastAPI endpoint",
        app="aiohttp_gateway:app",
        kinds=_HTTP,
    ),
    Contender(name="nginx", title="nginx", app=None, kinds=_ALL),
    Contender(
        name="router-3",
        title="fastapi-proxy-di, 3 destinations",
        app="router:app",
        kinds=frozenset({Kind.MANY}),
        destinations=3,
    ),
    Contender(
        name="router-1000",
        title="fastapi-proxy-di, 1,000 destinations",
        app="router:app",
        kinds=frozenset({Kind.MANY}),
        destinations=1000,
    ),
)


def _get(connections: int) -> Load:
    return Load(
        name=f"get-{connections}",
        title=f"1 KiB GET, {connections} connection{'s' if connections > 1 else ''}",
        kind=Kind.GET,
        origin=Origin.NGINX,
        unit="request",
        reference="fastapi",
        connections=connections,
        path="/1k",
    )


def loads(*, quick: bool) -> tuple[Load, ...]:
    """All loads in their order; `quick` lowers the numbers of streams and idle tunnels."""
    streams = 100 if quick else 500
    tunnels = 200 if quick else 2000
    return (
        *(_get(connections) for connections in (8, 32, 512)),
        Load(
            name="post",
            title="16 KiB POST, 32 connections",
            kind=Kind.POST,
            origin=Origin.NGINX,
            unit="request",
            reference="fastapi",
            connections=32,
            path="/post",
            body_bytes=POST_BODY_BYTES,
        ),
        Load(
            name="download",
            title="100 MB download",
            kind=Kind.DOWNLOAD,
            origin=Origin.NGINX,
            unit="transfer",
            reference="aiohttp",
            connections=1 if quick else 4,
            path="/100m",
        ),
        Load(
            name="destinations",
            title="1 KiB GET, 32 connections, many destinations",
            kind=Kind.MANY,
            origin=Origin.MANY,
            unit="request",
            reference="router-3",
            connections=32,
            path="/1k",
        ),
        Load(
            name="upload",
            title="100 MB upload",
            kind=Kind.UPLOAD,
            origin=Origin.ASGI,
            unit="transfer",
            reference="aiohttp",
            connections=1 if quick else 4,
            path="/upload",
        ),
        Load(
            name="sse",
            title=f"{streams} SSE streams",
            kind=Kind.EVENTS,
            origin=Origin.ASGI,
            unit="event",
            reference="asgi",
            connections=streams,
            path="/sse",
        ),
        Load(
            name="ws",
            title="WebSocket echo, 256-byte messages, 16 tunnels",
            kind=Kind.ECHO,
            origin=Origin.ASGI,
            unit="message",
            reference="asgi",
            connections=16,
            path="/ws",
        ),
        Load(
            name="ws-idle",
            title=f"{tunnels:,} idle WebSocket tunnels",
            kind=Kind.IDLE,
            origin=Origin.ASGI,
            unit="handshake",
            reference="asgi",
            connections=tunnels,
            path="/ws",
        ),
    )
