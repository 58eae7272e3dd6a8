"""``check`` warns of a store that is not safe, not there, or forgets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastapi_proxy_di import ClusterSettings
from fastapi_proxy_di.cli.store_check import store_warnings
from tests.support.redis_servers import RedisServer
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e


def shared(store: str) -> ClusterSettings:
    """Give the settings for a store."""
    return ClusterSettings(store=store, name="shop", key="0123456789abcdef")


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("redis://no.invalid", ["TLS", "password"]),
        ("rediss://no.invalid", ["password"]),
        ("redis://user@no.invalid", ["TLS", "password"]),
        ("redis://:secret@no.invalid", ["TLS"]),
        ("redis+sentinel://localhost,no.invalid/main", ["TLS", "password"]),
        ("rediss://:secret@no.invalid", []),
        ("unix:///no/such/socket", []),
    ],
)
async def test_unsafe_address_is_named(store: str, words: list[str]) -> None:
    """A store on this machine needs neither TLS nor a password."""
    *unsafe, unreachable = await store_warnings(shared(store))

    assert len(unsafe) == len(words)
    assert all(word in text for word, text in zip(words, unsafe, strict=True))
    assert "cannot be reached" in unreachable
    assert "secret" not in "".join([*unsafe, unreachable])


async def test_store_that_drops_records_is_named() -> None:
    """One that does not is fine, and so is one that may not be asked."""
    with RedisServer() as server:
        assert await store_warnings(shared(server.url)) == []
        server.client.config_set("maxmemory-policy", "allkeys-lru")
        (warning,) = await store_warnings(shared(server.url))
        server.client.acl_setuser("default", enabled=True, nopass=True, commands=["-config"])
        assert await store_warnings(shared(server.url)) == []

    assert "noeviction" in warning


def test_check_prints_the_warning() -> None:
    """It goes to stderr, and is no fault."""
    cluster = {
        "UPSTREAM_BILLING_DESTINATIONS": "asgi://tests.integration.status_page.gateway:origin",
        "FASTAPI_PROXY_CLUSTER__STORE": f"redis://127.0.0.1:{dead_port()}",
        "FASTAPI_PROXY_CLUSTER__NAME": "shop",
        "FASTAPI_PROXY_CLUSTER__KEY": "0123456789abcdef",
    }
    done = subprocess.run(
        [sys.executable, "-m", "fastapi_proxy_di", "check", "billing"],
        env={**os.environ, **cluster},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert "warning: cluster.store cannot be reached" in done.stderr
