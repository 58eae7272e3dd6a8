"""The body of a failed exchange, given back for another reader."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi_proxy_di.forwarding.body import RequestBody


async def _nothing() -> Any:
    raise AssertionError("nothing more is read")


async def test_body_given_back_has_the_piece_that_came_last() -> None:
    """It arrived while reading was about to end, and nothing has taken it."""
    body = RequestBody(_nothing, length=None, limit=None, retain=100, expects_continue=False)
    body.first = body._take(b"hel")
    late: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    late.set_result({"type": "http.request", "body": b"lo", "more_body": False})
    body._reading = late  # type: ignore[assignment]
    receive = body.given_back()

    assert receive is not None
    assert [(await receive())["body"] for _ in range(2)] == [b"hel", b"lo"]
