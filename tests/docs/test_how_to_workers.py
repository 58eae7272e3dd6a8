"""The page on several workers: two processes share a drain, and the files fit the page."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import httpx
import pytest
import yaml

from fastapi_proxy_di import ProxySettings
from fastapi_proxy_di.cli.arguments import parse
from tests.cluster.test_stores import RIGHTS
from tests.docs.conftest import SNIPPETS, Gateway, Snippet
from tests.support.redis_servers import RedisServer
from tests.support.servers import Running

pytestmark = pytest.mark.e2e

PAGE = (Path(SNIPPETS).parents[0] / "how-to" / "workers.md").read_text()
COMPOSE = yaml.safe_load((SNIPPETS / "how_to" / "deployment" / "redis.compose.yaml").read_text())


async def test_drain_holds_in_all_processes(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The response says in how many, as the page has it."""
    auth = httpx.BasicAuth("admin", "s3cret")
    with RedisServer() as server:
        monkeypatch.setenv("FASTAPI_PROXY_CLUSTER__STORE", server.url)
        monkeypatch.setenv("FASTAPI_PROXY_CLUSTER__NAME", "shop")
        monkeypatch.setenv("FASTAPI_PROXY_CLUSTER__KEY", "0123456789abcdef")
        monkeypatch.setenv("FASTAPI_PROXY_CLUSTER__TIMEOUT", "2")
        apps = [snippet("how_to/workers.py").app for _ in range(2)]
        async with gateway(apps[0]) as one, gateway(apps[1]) as two:
            response = await one.post(
                "/upstreams/billing/drain", json={"destination": billing[0].url}, auth=auth
            )
            shown = (await two.get("/upstreams/status.json", auth=auth)).json()

    assert response.json()["processes"] == {"applied": 2, "of": 2, "missing": []}
    first = shown["upstreams"][0]["destinations"][0]
    assert first["state"] == "draining"
    assert first["drained_by"].endswith(f":{os.getpid()}")


def test_rights_of_the_page_are_those_that_are_tested() -> None:
    """As a user types them."""
    _, _, text = PAGE.partition("ACL SETUSER shop on >password resetkeys ")

    assert text.partition("```")[0].split() == RIGHTS.split()


def test_compose_file_fits_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command parses, and the variables are settings that are valid together."""
    gateway = COMPOSE["services"]["gateway"]
    for name, value in gateway["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:\?\}", "0123456789abcdef", value))

    cluster = ProxySettings().cluster

    command = gateway["command"].removeprefix("fastapi-proxy-di ")
    assert parse(shlex.split(command)).names == ("billing",)
    assert cluster.store is not None
    assert cluster.name == "shop"
    assert "noeviction" in COMPOSE["services"]["redis"]["command"]
