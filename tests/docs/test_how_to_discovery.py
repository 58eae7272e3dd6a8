"""The snippets of the page on discovery: names, files, and a source by code."""

from __future__ import annotations

import importlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastapi_proxy_di import Balancer, UpstreamSettings
from fastapi_proxy_di.settings.source_schemes import ENTRY_POINTS
from tests.docs.conftest import SNIPPETS, Gateway, Snippet
from tests.support.dns_servers import dnsmasq
from tests.support.gateways import until
from tests.support.origins import Connection, ScriptedOrigin, response_bytes

FILES = SNIPPETS / "how_to" / "discovery"


class Billing(UpstreamSettings, name="billing"):
    """The upstream of the page."""


def test_variables_of_compose_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is that of the service."""
    services: dict[str, Any] = yaml.safe_load((FILES / "compose.yaml").read_text())["services"]
    for name, value in services["gateway"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = Billing(strict_environment=True)
    (source,) = [one.source for one in settings.given_destinations]

    assert source is not None
    assert source.host in services
    assert (settings.discovery.refresh, settings.health.path) == (2, "/health")


def test_service_of_kubernetes_fits_the_names_of_the_page() -> None:
    """A headless Service, and a port with a name."""
    service = yaml.safe_load((FILES / "billing.yaml").read_text())
    (port,) = service["spec"]["ports"]
    page = Path("docs/how-to/discovery.md").read_text()

    assert service["spec"]["clusterIP"] == "None"
    assert f"dns+http://{service['metadata']['name']}:{port['port']}" in page
    assert f"srv+http://_{port['name']}._tcp.{service['metadata']['name']}" in page


async def test_file_of_the_page_is_read() -> None:
    """With its weight and its limit."""
    async with Balancer.from_settings(
        Billing(destinations=[f"file://{FILES.resolve()}/destinations.toml"])
    ) as billing:
        found = [(one.url, one.weight, one.max_in_flight) for one in billing.destinations]

    assert found == [("http://10.0.0.1:8080", 1, None), ("http://10.0.0.2:8080", 2, 50)]


@pytest.mark.e2e
async def test_app_of_the_page_starts_without_its_names(
    snippet: Snippet, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And responds with 503 until something is found."""
    async with dnsmasq(tmp_path, "127.0.0.1 else.internal\n") as names:
        monkeypatch.setenv("UPSTREAM_BILLING_DISCOVERY__NAMESERVERS", names.nameserver)
        async with gateway(snippet("how_to/found.py").app) as client:
            response = await client.get("/billing/x")

    assert response.status_code == 503


class Registry:
    """Responds with a list of addresses, or with a status."""

    def __init__(self) -> None:
        self.found = ["http://10.0.0.1"]
        self.status = 200

    async def __call__(self, connection: Connection) -> None:
        """Respond to all requests of a connection."""
        while True:
            await connection.read_request()
            body = json.dumps(self.found).encode()
            await connection.send(response_bytes(status=self.status, body=body))


@pytest.mark.e2e
async def test_source_of_the_page_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed as its own project says; a failure of the registry changes nothing."""
    project = tomllib.loads((FILES / "entry_point.toml").read_text())["project"]
    metadata = tmp_path / "registry-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: registry\nVersion: 1\n")
    ((name, value),) = project["entry-points"][ENTRY_POINTS].items()
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{name} = {value}\n")
    assert (FILES / "registry.py").exists()
    monkeypatch.syspath_prepend(FILES.resolve())
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    script = Registry()
    async with ScriptedOrigin(script) as registry:
        url = registry.url.replace("http:", f"{name}:")
        settings = Billing(destinations=[f"{url}/billing"], discovery={"refresh": 0.02})
        async with Balancer.from_settings(settings) as billing:
            script.found = ["http://10.0.0.1", "http://10.0.0.2"]
            await until(lambda: len(billing.destinations) == 2)
            script.status = 500
            await until(lambda: billing.status().sources[0].reason)
            (source,) = billing.status().sources

    assert source.reason == "the registry says 500"
    assert source.found == 2
