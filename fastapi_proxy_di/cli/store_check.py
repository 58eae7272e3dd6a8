"""What ``check`` says about the store that the processes of an app share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from fastapi_proxy_di.settings import ClusterSettings

__all__ = ["store_warnings"]

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SECONDS: Final = 3.0


async def store_warnings(settings: ClusterSettings) -> list[str]:
    """Give what is unsafe about a store, or wrong with it; nothing if there is none."""
    if settings.store is None:
        return []
    address = settings.store.get_secret_value()
    return [f"cluster.store {text}" for text in (*_unsafe(address), *await _wrong(address))]


def _unsafe(address: str) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return
    login, _, hosts = parts.netloc.rpartition("@")
    names = {urlsplit(f"//{host}").hostname for host in hosts.split(",")}
    if names <= _LOCAL:
        return
    if not parts.scheme.startswith("rediss"):
        yield "goes to another host without TLS; use rediss:// unless the network is your own"
    if not login.partition(":")[2] and "password=" not in parts.query:
        yield "goes to another host without a password; give one, as in redis://:password@host"


async def _wrong(address: str) -> list[str]:
    try:
        # Imported late, because redis is an extra.
        from redis.exceptions import RedisError, ResponseError  # noqa: PLC0415

        from fastapi_proxy_di.cluster.connecting import connect  # noqa: PLC0415
    except ModuleNotFoundError:
        return ["needs the extra redis; run pip install 'fastapi-proxy-di[redis]'"]
    try:
        client = connect(address, timeout=_SECONDS, read_timeout=_SECONDS)
    except (TypeError, ValueError):  # its text may have the password in it
        return ["has an option after the '?' that is unknown or has no such value"]
    try:
        async with asyncio.timeout(_SECONDS):
            found = await client.execute_command("CONFIG", "GET", "maxmemory-policy")
    except ResponseError:
        return []  # a user with few rights may not ask
    except (RedisError, OSError) as error:
        return [f"cannot be reached ({type(error).__name__}); the app would start without it"]
    finally:
        await client.aclose()
    policy = str(found)  # a mapping or a list, as the client gives it
    if "noeviction" in policy or "maxmemory-policy" not in policy:
        return []
    return [
        "may drop records when its memory is full; set maxmemory-policy noeviction in the store"
    ]
