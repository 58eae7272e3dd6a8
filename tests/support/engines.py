"""Scripted model servers: event streams that stall, break off, report errors or end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final, Literal

from tests.support.gateways import gateway, until
from tests.support.http_client import RawResponse, fetch
from tests.support.origins import Connection, Headers, Script, ScriptedOrigin, chunk

__all__ = ["STREAM", "engine", "stream_head", "through"]

STREAM: Final = (b"Content-Type", b"text/event-stream; charset=utf-8")


def stream_head(*headers: tuple[bytes, bytes], status: int = 200) -> bytes:
    """Build the head of a chunked event stream."""
    lines = [b"HTTP/1.1 %d X" % status, STREAM[0] + b": " + STREAM[1]]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n"


def engine(
    *pieces: bytes,
    then: Literal["end", "stall", "reset", "close"] = "end",
    headers: Sequence[tuple[bytes, bytes]] = (),
    before: bytes = b"",
) -> Script:
    """Make a script that sends a stream of these pieces for each request.

    Args:
        *pieces: The chunks, each in a write of its own.
        then: What follows: the end of the body, silence until the peer leaves, or a broken
            connection.
        headers: Further headers.
        before: Sent before the head.
    """
    more: Headers = list(headers)

    async def script(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.send(before + stream_head(*more))
            for piece in pieces:
                await connection.send(chunk(piece))
            if then == "end":
                await connection.send(chunk(b""))
                continue
            if then == "stall":
                await connection.peer_left()
            elif then == "reset":
                connection.reset()
            return

    return script


async def through(
    *scripts: Script, method: str = "GET", body: bytes = b"", **settings: Any
) -> tuple[RawResponse, list[ScriptedOrigin]]:
    """Send a request through a gateway to scripted engines, the first of which is picked first."""
    origins = [ScriptedOrigin(script) for script in scripts]
    async with contextlib.AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(origin)).url for origin in origins]
        options: dict[str, Any] = {"streams": {"first_event": 0.1}, "policy": "first", **settings}
        gate = await stack.enter_async_context(gateway(*urls, **options))
        reply = await fetch(gate.address, method, "/billing/x", body=body)
        await until(lambda: gate.in_flight == 0)
    return reply, origins
