"""Cools a pair of destination and key where the destination refuses requests with the key.

Only upstreams with ``ejection.key`` use this file. The key is read from the request as it goes
up: from a header or the query here, from a JSON body by ``body_keys``. It is hashed at once, with
a secret of the process. At the pick a destination that cools for the key counts as full.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from hashlib import blake2b
from secrets import token_bytes
from time import monotonic
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi_proxy_di.balancing.hash_key import RequestKey
from fastapi_proxy_di.balancing.only_destination import OnlyDestination
from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.selection import Pick, Selection
from fastapi_proxy_di.errors import LimitExceeded
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.outcomes import retry_after_seconds
from fastapi_proxy_di.pools.cooled_pairs import CooledPairs
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import EjectionSettings
from fastapi_proxy_di.transport.protocol import TransportExchange

__all__ = ["KEY_LIMIT", "KeyCooling", "body_key", "hashed"]

KEY_LIMIT: Final = "ejection.key"
"""The limit of a refusal because the request's key cools."""

_SECRET: Final = token_bytes(32)
_DIGEST_BYTES: Final = 16


def hashed(value: bytes) -> bytes:
    """Hash a key, so that its value is not kept."""
    return blake2b(value, key=_SECRET, digest_size=_DIGEST_BYTES).digest()


def body_key(document: object, field: str) -> bytes | None:
    """Give the hashed text or number of a field at the top level of a JSON body, or ``None``."""
    value = document.get(field) if isinstance(document, dict) else None
    if not isinstance(value, (str, int, float)):
        return None
    return hashed(str(value).encode("utf-8", "surrogatepass"))


class KeyCooling:
    """Which keys cool at which destinations of one upstream.

    Args:
        settings: Where the key is, which statuses cool it, and for how long.
        pairs: The pairs that cool, which outlive the settings.
        select: The selection without keys.
        clock: Gives monotonic seconds.
    """

    def __init__(
        self,
        settings: EjectionSettings,
        pairs: CooledPairs,
        select: Selection,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        assert settings.key is not None
        self.statuses: Final = settings.key_statuses
        self._settings: Final = settings
        self._pairs: Final = pairs
        self._select: Final = select
        self._clock: Final = clock
        self._read: Final = _reader(settings.key)

    def around(
        self, send: Callable[[Exchange], Coroutine[Any, Any, None]]
    ) -> Callable[[Exchange], Coroutine[Any, Any, None]]:
        """Wrap ``send``: read the key of each exchange before."""
        read = self._read
        if read is None:
            return send

        def keyed(exchange: Exchange) -> Coroutine[Any, Any, None]:
            value = read(exchange)
            if value is not None and isinstance(exchange.key, RequestKey):
                exchange.key.ejection_key = hashed(value)
            return send(exchange)

        return keyed

    def select(
        self,
        policy: BalancingPolicy,
        pool: Pool,
        request: PickRequest | None = None,
        tried: Collection[Destination] = (),
    ) -> Pick:
        """Pick the destination for one attempt, of those where the request's key does not cool."""
        if isinstance(request, RequestKey) and request.ejection_key is not None:
            left = self._pairs.left(request.ejection_key, self._clock())
            cooled = tuple([one for url in left if (one := pool.find(url)) is not None])
            request.cooled = cooled
            if cooled:
                return self._select(policy, pool, request, (*tried, *cooled))
        return self._select(policy, pool, request, tried)

    def cool(self, exchange: Exchange, response: TransportExchange) -> float | None:
        """Cool the pair if the response refuses the key of its request.

        Returns:
            The seconds, of Retry-After, else of ``ejection.base_time``, and never more than
            ``ejection.max_time``; 0 if the response asks for none; ``None`` if it is not about a
            key.
        """
        key = exchange.key
        if response.status not in self.statuses or not isinstance(key, RequestKey):
            return None
        if key.ejection_key is None:
            return None
        asked = retry_after_seconds(response.headers)
        seconds = self._settings.base_time if asked is None else max(0.0, asked)
        seconds = min(seconds, self._settings.max_time)
        if seconds:
            until = self._clock() + seconds
            self._pairs.cool(exchange.destination.url, key.ejection_key, until)
        return seconds

    def cooled(self, exchange: Exchange, pool: Pool) -> tuple[Destination, ...]:
        """Give the destinations of ``pool`` at which the key of the exchange cools now."""
        key = exchange.key
        if not isinstance(key, RequestKey) or key.ejection_key is None:
            return ()
        left = self._pairs.left(key.ejection_key, self._clock())
        return tuple([one for one in pool.destinations if one.url in left])

    def refusal(self, exchange: Exchange, pool: Pool, retry_after: float) -> LimitExceeded | None:
        """Make the error of a pick without a destination, if it is because the key cools.

        Args:
            exchange: The exchange without a destination.
            pool: The pool of the pick.
            retry_after: Seconds after which the client may try again where others are full.

        Returns:
            ``None`` if no destination has room at which the key cools: then the key is not the
            reason.
        """
        key = exchange.key
        if not isinstance(key, RequestKey) or key.ejection_key is None:
            return None
        left = self._pairs.left(key.ejection_key, self._clock())
        usable = [one for tier in pool.tiers for one in tier]
        if isinstance(key, OnlyDestination):
            usable = [one for one in usable if one.url == key.url]
        seconds = [left[one.url] for one in usable if one.url in left and not one.full]
        if not seconds:
            return None
        if any(one.url not in left for one in usable):
            seconds.append(retry_after)  # others are full, and may soon have room
        error = LimitExceeded(
            f"the key of the request cools at every destination of {pool.name} that has room",
            upstream=pool.name,
            attempts=exchange.attempts,
        )
        error.limit = KEY_LIMIT
        error.retry_after = max(1.0, min(seconds))
        return error


def _reader(spec: str) -> Callable[[Exchange], bytes | None] | None:
    """Give the reader of the key; ``None`` if it is in the body."""
    kind, _, name = spec.partition(":")
    if kind == "header":
        header = name.lower().encode("latin-1")
        return lambda exchange: next(
            (value for key, value in exchange.headers if key == header), None
        )
    if kind == "query":
        return lambda exchange: _parameter(exchange.query, name)
    return None


def _parameter(query: bytes, wanted: str) -> bytes | None:
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name == wanted:
            return value.encode("utf-8")
    return None
