"""The files of the pages on containers and Kubernetes fit together: commands, times, settings."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml

from fastapi_proxy_di import DestinationSettings, ProxySettings, UpstreamSettings
from fastapi_proxy_di.cli.arguments import parse
from tests.docs.conftest import SNIPPETS, Gateway, Snippet
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.processes import package
from tests.support.servers import dead_port

FILES = SNIPPETS / "how_to" / "deployment"
DOCKERFILE = (FILES / "Dockerfile").read_text().replace("\\\n", "")
CMD: list[str] = json.loads(re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)[0])
DOCKER_STOP_SECONDS = 10
SERVE_FILES = ("serve.Dockerfile", "workers.Dockerfile")


def instruction(name: str, kind: str) -> list[str]:
    """Give the command of an instruction of a Dockerfile, which is a JSON list."""
    text = (FILES / name).read_text().replace("\\\n", "")
    found: list[str] = json.loads(re.findall(rf"^{kind}.*?(\[.+\])$", text, re.MULTILINE)[0])
    return found


def exits_with(command: list[str], before: str, after: int) -> int:
    """Run a health check with another port, and give its exit status."""
    assert command[0] == "python"
    words = [word.replace(before, str(after)) for word in command[1:]]
    done = subprocess.run([sys.executable, *words], capture_output=True, check=False, timeout=60)
    return done.returncode


def manifests(name: str) -> dict[str, dict[str, Any]]:
    """Give the objects of a file by their kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((FILES / name).read_text())}


GATEWAY = manifests("gateway.yaml")
POD = GATEWAY["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
POD_COMMAND: list[str] = CONTAINER["command"] + CONTAINER["args"]
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def options(command: list[str]) -> dict[str, Any]:
    """Parse a command line of uvicorn as uvicorn does."""
    return uvicorn.main.make_context(command[0], list(command[1:])).params


@pytest.mark.parametrize("command", [CMD, POD_COMMAND], ids=["Dockerfile", "gateway.yaml"])
def test_commands_exist(command: list[str]) -> None:
    """The first word is a command of this environment, and the server knows its options."""
    assert shutil.which(command[0], path=str(Path(sys.executable).parent))
    assert options(command)["app"] == "main:app"
    assert options(command)["forwarded_allow_ips"] == "10.0.0.0/8"


def test_dockerfile_leaves_time_for_the_lifespan() -> None:
    """`docker stop` kills after ten seconds."""
    assert 0 < options(CMD)["timeout_graceful_shutdown"] <= DOCKER_STOP_SECONDS - 2
    assert f"EXPOSE {options(CMD)['port']}\n" in DOCKERFILE


@pytest.mark.parametrize("name", SERVE_FILES)
def test_image_of_serve(name: str) -> None:
    """Runs as another user than root, serves the port that it exposes, and checks its health."""
    text = (FILES / name).read_text()
    program, *words = instruction(name, "ENTRYPOINT") + instruction(name, "CMD")
    arguments = parse(words)
    (check,) = [word for word in instruction(name, "HEALTHCHECK") if "127.0.0.1" in word]

    assert program == "fastapi-proxy-di"
    assert (arguments.command, arguments.names, arguments.host) == (
        "serve",
        ("billing",),
        "0.0.0.0",
    )
    assert f"EXPOSE {arguments.port}\n" in text
    assert str(arguments.port if arguments.status is None else arguments.status) in check
    assert "USER nobody\n" in text
    assert "STOPSIGNAL SIGTERM\n" in text


@pytest.mark.e2e
async def test_image_of_serve_runs() -> None:
    """Its command serves, and its health check fails once it has ended."""
    words = instruction("serve.Dockerfile", "ENTRYPOINT") + instruction("serve.Dockerfile", "CMD")
    check = instruction("serve.Dockerfile", "HEALTHCHECK")
    ports = {"8000": "0", "9900": "0"}
    async with ScriptedOrigin() as origin:
        environment = {"UPSTREAM_BILLING_DESTINATIONS": origin.url}
        words = [ports.get(word, word) for word in words[1:]]
        async with package(*words, environment=environment) as running:
            page = int((await running.line(r"^status page: http://127\.0\.0\.1:(\d+)/$"))[1])
            healthy = await asyncio.to_thread(exits_with, check, "9900", page)
            running.signal(signal.SIGTERM)
            status = await running.end()
        unhealthy = await asyncio.to_thread(exits_with, check, "9900", page)

    assert (healthy, status, unhealthy) == (0, 0, 1)


@pytest.mark.e2e
async def test_health_check_of_workers_connects() -> None:
    """To the port of the gateway."""
    check = instruction("workers.Dockerfile", "HEALTHCHECK")
    async with ScriptedOrigin() as origin:
        up = await asyncio.to_thread(exits_with, check, "8000", origin.port)
    down = await asyncio.to_thread(exits_with, check, "8000", dead_port())

    assert (up, down) == (0, 1)


def test_health_check_of_the_app_is_its_liveness() -> None:
    """A route of the app on the page, whose probe Kubernetes sends as well."""
    (check,) = [word for word in instruction("Dockerfile", "HEALTHCHECK") if "127.0.0.1" in word]
    path = CONTAINER["livenessProbe"]["httpGet"]["path"]

    assert f"http://127.0.0.1:{options(CMD)['port']}{path}" in check


def test_pod_has_time_for_its_shutdown() -> None:
    """The grace period is longer than preStop and the server's own time together."""
    command = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    taken = int(command[1]) + options(POD_COMMAND)["timeout_graceful_shutdown"]

    assert POD["spec"]["terminationGracePeriodSeconds"] >= taken + 5


def test_ports_names_and_labels_fit_together() -> None:
    """Services find their pods, probes their port, and the pod its settings."""
    (port,) = CONTAINER["ports"]
    service = GATEWAY["Service"]["spec"]

    assert port["containerPort"] == options(POD_COMMAND)["port"]
    assert {CONTAINER[probe]["httpGet"]["port"] for probe in PROBES} == {port["name"]}
    assert [each["targetPort"] for each in service["ports"]] == [port["name"]]
    assert service["selector"] == POD["metadata"]["labels"]
    assert GATEWAY["Deployment"]["spec"]["selector"]["matchLabels"] == service["selector"]
    assert [next(iter(each.values()))["name"] for each in CONTAINER["envFrom"]] == [
        GATEWAY["ConfigMap"]["metadata"]["name"],
        GATEWAY["Secret"]["metadata"]["name"],
    ]


def test_settings_of_the_pod_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The destinations are the pods of the StatefulSet, by the names of the headless Service."""

    class Billing(UpstreamSettings, name="billing"):
        """The upstream of the page."""

    for name, value in (GATEWAY["ConfigMap"]["data"] | GATEWAY["Secret"]["stringData"]).items():
        monkeypatch.setenv(name, value)
    upstream = manifests("billing.yaml")
    service, pods = upstream["Service"], upstream["StatefulSet"]
    (port,) = service["spec"]["ports"]
    names = [
        f"http://{pods['metadata']['name']}-{number}.{service['metadata']['name']}:{port['port']}"
        for number in range(pods["spec"]["replicas"])
    ]
    settings = Billing(strict_environment=True)

    assert settings.destinations == tuple(DestinationSettings(url=name) for name in names)
    assert settings.health.path == "/health"
    assert pods["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == pods["spec"]["template"]["metadata"]["labels"]


@pytest.mark.e2e
async def test_probes_are_routes_of_the_app(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a destination all probes are good; without one, the pod lives and is not ready."""
    paths = [CONTAINER[probe]["httpGet"]["path"] for probe in PROBES]
    app = snippet("how_to/probes.py").app
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__PATH", "/health")

    async def statuses(client: httpx.AsyncClient) -> list[int]:
        return [(await client.get(path)).status_code for path in paths]

    async with ScriptedOrigin(always(response_bytes(body=b"ok"))) as origin:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", origin.url)
        async with gateway(app) as client:
            up = await statuses(client)
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"http://127.0.0.1:{dead_port()}")
    async with gateway(snippet("how_to/probes.py").app) as client:
        down = await statuses(client)

    assert up == [200, 200, 200]
    assert down == [200, 200, 503]


@pytest.mark.e2e
async def test_config_map_is_read_by_the_reload_page(
    snippet: Snippet, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ConfigMap's file is what the snippet reads; a reload changes it, a fault does not."""
    objects = manifests("configmap.yaml")
    (text,) = objects["ConfigMap"]["data"].values()
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    module = snippet("how_to/reload.py")
    place = Path(module.Billing.model_config["toml_file"])
    file = tmp_path / place.name
    monkeypatch.setitem(module.Billing.model_config, "toml_file", file)
    file.write_text(text)

    async with gateway(module.app) as client:
        key = {"x-api-key": "s3cret"}
        same = await client.post("/reload", headers=key)
        file.write_text(text.replace("30s", "20s"))
        changed = await client.post("/reload", headers=key)
        file.write_text(text.replace("30s", "never"))
        faulty = await client.post("/reload", headers=key)
        refused = await client.post("/reload", headers={"x-api-key": "other"})

    assert (same.json(), changed.json()) == ({"billing": []}, {"billing": ["timeouts.total"]})
    assert (faulty.status_code, refused.status_code) == (409, 403)
    assert container["volumeMounts"][0]["mountPath"] == str(place.parent)
    assert ProxySettings(reload=container["env"][0]["value"]).reload == "watch"
