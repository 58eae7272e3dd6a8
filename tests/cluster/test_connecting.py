"""Clients are made for each kind of address."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster

from fastapi_proxy_di.cluster.connecting import connect
from tests.support.redis_servers import RedisServer


def made(address: str) -> Any:
    """Give the client for an address."""
    return connect(address, timeout=1.0, read_timeout=2.0)


async def test_sentinel_has_credentials_of_its_own() -> None:
    """Those of the address are for the store, the options for Sentinel."""
    client = made(
        "rediss+sentinel://user:p%40ss@a,b:7/my/3?sentinel_password=other&ssl_ca_certs=ca.pem"
    )
    pool = client.connection_pool
    sentinels = pool.sentinel_manager.sentinels

    assert isinstance(client, Redis)
    assert pool.service_name == "my"
    store = {"username": "user", "password": "p@ss", "db": 3, "ssl_ca_certs": "ca.pem"}
    assert store.items() <= pool.connection_kwargs.items()
    of_sentinel = [one.connection_pool.connection_kwargs for one in sentinels]
    assert [(one["host"], one["port"]) for one in of_sentinel] == [("a", 26379), ("b", 7)]
    assert {one["password"] for one in of_sentinel} == {"other"}
    assert {one["ssl_ca_certs"] for one in of_sentinel} == {"ca.pem"}


async def test_cluster_knows_all_hosts() -> None:
    """Any of them tells of the others."""
    client = made("redis+cluster://:secret@[::1]:7000,b")

    assert isinstance(client, RedisCluster)
    assert set(client.nodes_manager.startup_nodes) == {"::1:7000", "b:6379"}


@pytest.mark.parametrize(
    "address",
    [
        "redis+cluster://a?no_such_option=1",
        "redis://a?no_such_option=1",
        "redis://a?db=first",
        "redis://a?decode_responses=true",
    ],
)
async def test_option_that_cannot_work_is_a_fault(address: str) -> None:
    """When the client is made, not at the first command."""
    with pytest.raises((TypeError, ValueError)):
        made(address)


@pytest.mark.e2e
async def test_server_is_reached_by_address_and_by_socket() -> None:
    """With a password."""
    with RedisServer("--requirepass", "secret", "--unixsocket", "s", password="secret") as server:
        for address in (server.url, f"unix://:secret@{server.folder}/s"):
            client = made(address)
            assert await client.execute_command("PING")
            await client.aclose()
