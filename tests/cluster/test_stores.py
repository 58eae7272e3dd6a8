"""Processes agree through each kind of store: few rights, TLS, Sentinel, a Redis Cluster."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis import Redis

from tests.cluster.shared_gateways import A, B, shared_gateways
from tests.cluster.sharing import Process, until
from tests.support.gateways import Gateway
from tests.support.redis_servers import RedisServer
from tests.support.servers import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RIGHTS = (
    "~{shop}:* +eval +evalsha +time +del +get +mget +set +pexpire +hdel +hget +hgetall +hscan +hset"
    " +lindex +lpop +rpush +xadd +xrange +xread +xrevrange +zadd +zcount +zrange +zrangebyscore"
    " +zrem +zremrangebyscore +zscore"
)


async def agree(store: str) -> None:
    """Let two gateways share a drain, with probes that are shared as well."""
    async with shared_gateways(store, 2) as gateways:
        await drain(*gateways)


async def drain(one: Gateway, two: Gateway) -> None:
    """Drain in one process, undrain in the other."""
    _ = one.balancer.drain(B)
    await until(lambda: two.balancer.destinations[1].draining)
    two.balancer.undrain(B)
    await until(lambda: not one.balancer.destinations[1].draining)
    one.balancer.configure_destination(A, weight=2)
    await until(lambda: two.balancer.destinations[0].weight == 2)


async def test_user_with_the_least_rights(caplog: pytest.LogCaptureFixture) -> None:
    """Of nothing but the keys of the app and the commands that are needed."""
    with RedisServer() as server:
        rights = RIGHTS.split()
        setuser: Any = server.client.execute_command
        setuser("ACL", "SETUSER", "shop", "on", ">pw", "resetkeys", *rights)
        await agree(server.url.replace("redis://", "redis://shop:pw@"))
        assert server.client.acl_log() == []
    assert "store" not in caplog.text


async def test_store_with_tls(tmp_path: Path) -> None:
    """With a CA of one's own, whose certificate the address names."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    port = free_port()
    files = ("--tls-cert-file", f"{tmp_path}/cert.pem", "--tls-key-file", f"{tmp_path}/key.pem")
    with RedisServer("--tls-port", str(port), *files, "--tls-auth-clients", "no"):
        await agree(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/ca.pem")


@pytest.fixture
def stack() -> Any:
    """Close what a test starts."""
    with ExitStack() as stack:
        yield stack


async def test_sentinel_fails_over(stack: ExitStack, tmp_path: Path) -> None:
    """The processes follow it to the new primary, and the drain is there again."""
    first = stack.enter_context(RedisServer())
    second = stack.enter_context(RedisServer("--replicaof", f"127.0.0.1 {first.port}"))
    port = free_port()
    (tmp_path / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor main 127.0.0.1 {first.port} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    )
    sentinel = subprocess.Popen(  # noqa: ASYNC220  # returns at once
        ["redis-sentinel", tmp_path / "sentinel.conf"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(sentinel.wait)
    stack.callback(sentinel.kill)
    with Redis(port=port) as asked:
        await until(lambda: replicas_of(asked) == 1, 20)
    async with shared_gateways(f"redis+sentinel://127.0.0.1:{port}/main", 2) as (one, two):
        await drain(one, two)
        _ = one.balancer.drain(B)
        first.kill()
        await until(lambda: second.client.role()[0] == b"master", 20)
        await until(lambda: two.balancer.destinations[1].draining, 5)
        two.balancer.configure_destination(A, weight=7)
        await until(lambda: one.balancer.destinations[0].weight == 7, 5)


def replicas_of(sentinel: Redis) -> int:
    """Give how many replicas Sentinel knows, 0 while it does not respond."""
    try:
        master: Any = sentinel.sentinel_master("main")
        return int(master["num-slaves"])
    except Exception:  # it is starting
        return 0


async def test_redis_cluster_of_three_nodes(stack: ExitStack) -> None:
    """All keys of an app are in one slot."""
    servers = [
        stack.enter_context(
            RedisServer(
                *("--cluster-enabled", "yes", "--cluster-config-file", f"{n}.conf"),
                # By default the port above by 10,000, which may be taken.
                *("--cluster-port", str(free_port())),
            )
        )
        for n in range(3)
    ]
    nodes = [f"127.0.0.1:{one.port}" for one in servers]
    subprocess.run(  # noqa: ASYNC221  # nothing else runs yet
        ["redis-cli", "--cluster", "create", *nodes, "--cluster-yes"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    await until(lambda: all(ready(one) for one in servers), 20)
    await agree(f"redis+cluster://{','.join(nodes)}")


def ready(server: RedisServer) -> bool:
    """Whether a node knows all slots."""
    return bool(server.client.cluster("INFO")["cluster_state"] == "ok")


async def test_redis_cluster_that_is_not_there_yet_is_found_later(stack: ExitStack) -> None:
    """The app starts without it, and each process looks for it once a second."""
    server = RedisServer(
        *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
        *("--cluster-require-full-coverage", "no"),
    )
    stack.callback(server.close)
    process = Process(f"redis+cluster://127.0.0.1:{server.port}", timeout=1.0)
    await process.cluster.start()
    try:
        assert process.events == ["StoreLost"]
        await asyncio.sleep(1.5)  # further beats fail meanwhile
        server.start()
        server.client.cluster("ADDSLOTSRANGE", "0", "16383")
        await until(lambda: process.events == ["StoreLost", "StoreBack"], 10)
        assert await process.write("http://a:80", 1)
    finally:
        await process.cluster.aclose()
