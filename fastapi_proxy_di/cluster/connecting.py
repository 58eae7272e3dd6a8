"""Makes the client of redis-py for the address of a store: a server, Sentinel or a Redis Cluster.

A command is tried once. How long it may take is the business of `Store`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

__all__ = ["Client", "connect"]

_SENTINEL_PORT: Final = 26379
_PORT: Final = 6379


class Client(Protocol):
    """What is used of a client of redis-py."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command and give its response."""

    async def aclose(self) -> None:
        """Close all connections."""


def connect(address: str, *, timeout: float | None, read_timeout: float | None) -> Client:
    """Make a client; it opens connections when they are needed.

    Args:
        address: A valid ``cluster.store``.
        timeout: Seconds that opening a connection may take, ``None`` for no limit.
        read_timeout: Seconds until a response must have come, ``None`` for no limit.

    Raises:
        TypeError: An option of the address is unknown.
        ValueError: An option has no such value.
    """
    parts = urlsplit(address)
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "socket_timeout": read_timeout,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    if parts.scheme.endswith("+sentinel"):
        return _behind_sentinel(parts, options)
    if parts.scheme.endswith("+cluster"):
        return _cluster(parts, options)
    client = Redis.from_url(address, **options)
    _check(client)
    return cast("Client", client)


def _check(client: Redis) -> None:
    """Find the faults of the address that redis-py would find at the first command.

    Raises:
        TypeError: An option is unknown.
        ValueError: An option would change what responses are.
    """
    if client.connection_pool.connection_kwargs.get("decode_responses"):
        raise ValueError("decode_responses: responses are read as bytes")
    _ = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # has no types


class _BehindSentinel(Redis):
    """Closes the connections to Sentinel as well."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        try:
            await super().aclose(close_connection_pool)
        finally:
            sentinels = self.connection_pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
            await asyncio.gather(*(one.aclose() for one in sentinels))


class _Cluster(RedisCluster):
    """Closes the connections to the nodes of the address as well."""

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            await asyncio.gather(*(one.disconnect() for one in self.startup_nodes))


def _behind_sentinel(parts: SplitResult, options: dict[str, Any]) -> Client:
    """Give a client of the primary that Sentinel names, also after a failover.

    The user and the password are those of the store. Those of Sentinel are the options
    ``sentinel_username`` and ``sentinel_password``.
    """
    service, _, database = parts.path.strip("/").partition("/")
    given: dict[str, Any] = dict(parse_qsl(parts.query))
    shared = {**options, **_tls(parts, given)}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # its signature has no types
        _hosts(parts, _SENTINEL_PORT),
        sentinel_kwargs={
            **shared,
            "username": given.pop("sentinel_username", None),
            "password": given.pop("sentinel_password", None),
        },
        **shared,
        **_credentials(parts),
        **given,
        db=int(database or 0),
    )
    return cast("Client", sentinel.master_for(unquote(service), redis_class=_BehindSentinel))


def _cluster(parts: SplitResult, options: dict[str, Any]) -> Client:
    given: dict[str, Any] = dict(parse_qsl(parts.query))
    tls = _tls(parts, given)
    nodes = [ClusterNode(host, port) for host, port in _hosts(parts, _PORT)]
    return cast(
        "Client",
        _Cluster(startup_nodes=nodes, **options, **tls, **_credentials(parts), **given),
    )


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    found = []
    for one in parts.netloc.rpartition("@")[2].split(","):
        only = urlsplit(f"//{one}")
        found.append((only.hostname or "localhost", only.port or default_port))
    return found


def _credentials(parts: SplitResult) -> dict[str, Any]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return {
        name: unquote(value)
        for name, value in (("username", user), ("password", password))
        if value
    }


def _tls(parts: SplitResult, given: dict[str, Any]) -> dict[str, Any]:
    """Take the options of TLS from ``given``."""
    tls = {name: given.pop(name) for name in list(given) if name.startswith("ssl_")}
    return {"ssl": True, **tls} if parts.scheme.startswith("rediss") else {}
