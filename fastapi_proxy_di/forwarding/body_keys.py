"""Reads the body of a request before the pick, where ``prefix`` or ``ejection.key`` needs it.

Upstreams whose settings ask for no key of the body do not use this file. A body is read only if
its length is known. Of a JSON body up to ``streams.replay_bytes`` all is read, and it is kept, so
that another attempt can send it again; of any other, as many bytes as the key needs. A client
that waits for 100 Continue is not made to send its body to us before a destination has asked for
it, so its request has no key.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from fastapi_proxy_di.balancing.hash_key import RequestKey
from fastapi_proxy_di.balancing.prefix import Prefix, prefix_key
from fastapi_proxy_di.errors import Failure
from fastapi_proxy_di.forwarding.body import RequestBody
from fastapi_proxy_di.forwarding.deadlines import Deadlines, timeout_error
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.key_cooling import body_key
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.wire.media_type import is_json_type

__all__ = ["BodyKeys", "body_keys_of"]


class BodyKeys:
    """Gives requests the keys that are in their bodies.

    Args:
        prefix_bytes: Number of bytes of the prompt that make the key of the policy ``prefix``, 0
            for another policy.
        field: The field of a JSON body that is the key of ``ejection.key``, ``None`` if the body
            has none.
        replay_bytes: Length of the largest JSON body that is read.
    """

    def __init__(self, prefix_bytes: int, field: str | None, replay_bytes: int) -> None:
        self._prefix_bytes: Final = prefix_bytes
        self._field: Final = field
        self._replay_bytes: Final = replay_bytes

    def kept(self, exchange: Exchange) -> int:
        """Give how many bytes of the body must be kept for another attempt."""
        length = exchange.length
        return length if length is not None and self._reads_json(exchange, length) else 0

    async def read(self, exchange: Exchange, body: RequestBody, deadlines: Deadlines) -> float:
        """Read what the keys need of the body, and give the request its keys.

        Args:
            exchange: The exchange, with the request to send.
            body: Its body.
            deadlines: The deadlines of the exchange.

        Returns:
            The loop time at which reading began, from which the total timeout counts.

        Raises:
            ProxyError: The client disconnected, or a deadline has passed.
        """
        began = asyncio.get_running_loop().time()
        keys = exchange.key
        if not isinstance(keys, RequestKey):
            return began
        # An endpoint may have given the key of the policy.
        prefix_bytes = self._prefix_bytes if keys.given is None else 0
        length = exchange.length
        if length is None:
            if not body.ended:
                return began
            length = len(body.first)
        is_json = self._reads_json(exchange, length)
        if not prefix_bytes and (self._field is None or not is_json):
            return began
        needed = length if is_json else min(length, prefix_bytes)
        if len(body.first) < needed and not body.ended:
            if body.expects_continue:
                return began
            try:
                async with asyncio.timeout(deadlines.total):
                    await body.read_ahead(needed, deadlines.activity)
            except TimeoutError:
                raise timeout_error(exchange, Failure.TOTAL_TIMEOUT, deadlines) from None
        document = _document(body.first) if is_json else None
        if prefix_bytes:
            keys.given = prefix_key(body.first, document, prefix_bytes)
        if self._field is not None:
            keys.ejection_key = body_key(document, self._field)
        return began

    def _reads_json(self, exchange: Exchange, length: int) -> bool:
        if length > self._replay_bytes:
            return False
        is_json = False
        for name, value in exchange.headers:
            if name == b"content-type":
                is_json = is_json_type(value)
            elif name == b"content-encoding":
                return False
        return is_json


def body_keys_of(settings: UpstreamSettings) -> BodyKeys | None:
    """Give what reads the keys of bodies, ``None`` if the settings ask for none."""
    kind, _, field = (settings.ejection.key or "").partition(":")
    prefix_bytes = settings.prefix_bytes if settings.policy == Prefix.name else 0
    if kind != "body" and not prefix_bytes:
        return None
    return BodyKeys(prefix_bytes, field if kind == "body" else None, settings.streams.replay_bytes)


def _document(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
