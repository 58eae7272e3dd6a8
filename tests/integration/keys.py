"""Destinations that refuse some keys, and requests with keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.gateways import Gateway
from tests.support.http_client import RawResponse, fetch
from tests.support.origins import Connection, Script, response_bytes

__all__ = ["BY_HEADER", "ask", "refuses"]

BY_HEADER: dict[str, Any] = {"key": "header:authorization"}


def refuses(keys: Mapping[bytes, bytes | None], body: bytes = b"ok", status: int = 429) -> Script:
    """Refuse these keys, each with its Retry-After; respond with ``body`` to others.

    A key is in ``authorization``, in the query, or in the body.
    """

    async def script(connection: Connection) -> None:
        while True:
            received = await connection.read_request()
            seen = received.head + received.body
            key = next((key for key in keys if key in seen), None)
            after = None if key is None else keys[key]
            headers = [] if after is None else [(b"Retry-After", after)]
            if key is None:
                await connection.send(response_bytes(body=body))
            else:
                await connection.send(response_bytes(status, b"no " + body, headers))

    return script


async def ask(gate: Gateway, key: bytes | None, method: str = "GET") -> RawResponse:
    """Send a request with the key in ``authorization``."""
    headers = [] if key is None else [(b"Authorization", key)]
    body = b"hello" if method == "POST" else None
    return await fetch(gate.address, method, "/billing/x", headers, body)
