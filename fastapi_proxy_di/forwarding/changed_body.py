"""Lets a tap change the JSON body of a request before it is sent.

Upstreams whose mounts ask for none of it do not use this file. A body is changed only if it is
JSON, not encoded, without a digest, and its length is known and small enough to be read whole
before a destination is picked. A client that waits for 100 Continue is not made to send its body.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi_proxy_di.errors import Failure
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.deadlines import Deadlines, timeout_error
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.taps import ChangesRequest
from fastapi_proxy_di.wire.media_type import is_json

__all__ = ["change_body"]

_FIXED: Final = frozenset(
    {b"content-encoding", b"content-digest", b"repr-digest", b"digest", b"content-md5"}
)
"""Headers of a body that would not be true of a changed one."""


async def change_body(
    exchange: Exchange,
    body: RequestBody,
    tap: ChangesRequest,
    deadlines: Deadlines,
    limit: int,
) -> bool:
    """Read the body of a request, and change it if the tap wants to.

    Args:
        exchange: The exchange, with the request to send.
        body: Its body.
        tap: Changes the body.
        deadlines: The deadlines of the exchange.
        limit: Bytes of the largest body that is read.

    Returns:
        Whether the body is another one now, and needs other framing.

    Raises:
        ProxyError: The client disconnected, or a deadline has passed.
    """
    length = exchange.length
    headers = exchange.headers
    if (
        length is None
        or length > limit
        or body.expects_continue
        or not is_json(headers)
        or any(name in _FIXED for name, _ in headers)
    ):
        return False
    try:
        async with asyncio.timeout(deadlines.total):
            await body.read_ahead(length, deadlines.activity)
    except TimeoutError:
        raise timeout_error(exchange, Failure.TOTAL_TIMEOUT, deadlines) from None
    content = tap.changed(exchange.target, body.first)
    if content is None:
        return False
    body.replace(content)
    return True
