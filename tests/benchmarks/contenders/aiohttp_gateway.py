"""A plain gateway on aiohttp's client in a FastAPI endpoint, as one writes it by hand.

Streams both ways, keeps one session, no cookie jar, no connection cap, bodies undecoded.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from yarl import URL

_ORIGIN: Final = os.environ["BENCH_ORIGIN"]
_CHUNK_BYTES: Final = 64 * 1024
_NOT_FORWARDED: Final = frozenset(
    {
        "host",
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one client session for the app's life."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_read=100),
        read_bufsize=_CHUNK_BYTES,
    ) as session:
        app.state.session = session
        yield


app = FastAPI(lifespan=lifespan)


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
async def gateway(request: Request) -> StreamingResponse:
    """Forward the request and stream the response back."""
    session: aiohttp.ClientSession = request.app.state.session
    has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
    query = request.scope["query_string"].decode("latin-1")
    target = _ORIGIN + request.scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    upstream_response = await session.request(
        request.method,
        URL(target, encoded=True),
        headers=[(k, v) for k, v in request.headers.items() if k not in _NOT_FORWARDED],
        data=request.stream() if has_body else None,
        allow_redirects=False,
    )

    async def body() -> AsyncIterator[bytes]:
        try:
            async for chunk in upstream_response.content.iter_any():
                yield chunk
        finally:
            upstream_response.release()

    response = StreamingResponse(body(), status_code=upstream_response.status)
    response.raw_headers = _response_headers(upstream_response.headers)
    return response


def _response_headers(headers: Any) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if name.lower() not in _NOT_FORWARDED and name.lower() not in ("date", "server")
    ]
