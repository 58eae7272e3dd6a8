"""The files of the tutorial and the commands of its first pages work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from fastapi_proxy_di import Upstream
from tests.docs.conftest import SNIPPETS, Gateway, Snippet
from tests.docs.websocket_client import say
from tests.support.processes import running
from tests.support.servers import Running, free_port, run_app

pytestmark = pytest.mark.e2e


TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"


async def test_mount_shares_requests_between_both_services(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """Both services get requests."""
    async with gateway(snippet("tutorial/mount.py").app) as client:
        responses = [(await client.get("/billing/invoices/7")).json() for _ in range(40)]

    assert {response["served_by"] for response in responses} == {
        running.port for running in billing
    }
    assert {response["total"] for response in responses} == {70}


async def test_mount_forwards_streams_and_websockets(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """Server-sent events and WebSockets are forwarded."""
    async with gateway(snippet("tutorial/mount.py").app) as client:
        events = await client.get("/billing/events")
        heard, subprotocol = await say(client, "/billing/live", "hello")

    assert events.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert events.headers["content-type"].startswith("text/event-stream")
    assert (heard, subprotocol) == ("billing heard hello", None)


async def test_mount_works_when_one_service_stops(
    snippet: Snippet, monkeypatch: pytest.MonkeyPatch, gateway: Gateway
) -> None:
    """No request fails while one of two destinations refuses connections."""
    service = snippet("tutorial/billing_service.py").app
    async with contextlib.AsyncExitStack() as stopped, run_app(service) as two:
        one = await stopped.enter_async_context(run_app(service))
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", f"{one.url},{two.url}")
        async with gateway(snippet("tutorial/mount.py").app) as client:
            before = [(await client.get("/billing/health")).status_code for _ in range(10)]
            await stopped.aclose()
            after = [(await client.get("/billing/health")).status_code for _ in range(20)]

    assert set(before + after) == {200}


async def test_inject_replaces_a_forged_header(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """The response is the one that the page shows."""
    async with gateway(snippet("tutorial/inject.py").app) as client:
        response = await client.post("/pay", content="forty euros", headers={"x-tenant": "forged"})

    assert response.json() == {"tenant": "acme", "bytes": 11}


async def test_call_uses_the_upstream_as_an_api(
    snippet: Snippet, billing: tuple[Running, Running], gateway: Gateway
) -> None:
    """A known invoice has a summary; an unknown invoice is 404."""
    async with gateway(snippet("tutorial/call.py").app) as client:
        known = await client.get("/invoices/7/summary")
        unknown = await client.get("/invoices/1000/summary")

    assert known.json() == {"number": 7, "total": 70}
    assert unknown.status_code == 404


async def test_call_maps_500_to_502(
    snippet: Snippet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 500 of the upstream becomes 502, not 404."""
    service = FastAPI()

    @service.get("/invoices/{number}", status_code=500)
    async def broken(number: int) -> None:
        return None

    async with run_app(service) as running:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", running.url)
        async with gateway(snippet("tutorial/call.py").app) as client:
            response = await client.get("/invoices/7/summary")

    assert response.status_code == 502


async def test_configure_merges_the_environment_field_by_field(
    snippet: Snippet,
    billing: tuple[Running, Running],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Addresses and interval come from the environment, the probe's path from the class."""
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__INTERVAL", "1")
    module = snippet("tutorial/configure.py")
    settings = module.Billing()
    async with gateway(module.app):
        available = Upstream("billing").of(module.app).available

    assert (settings.health.path, settings.health.interval) == ("/health", 1)
    assert settings.timeouts.connect == 1
    assert len(available) == 2


@pytest.mark.e2e
@pytest.mark.slow
def test_test_page_passes_as_it_is_written() -> None:
    """The tests of the page pass."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=prepend", "test_call.py"],
        cwd=SNIPPETS / "tutorial",
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


# -- the commands -----------------------------------------------------------------------


def commands(page: str) -> list[str]:
    """Give every line of every ``sh`` block of a page of the tutorial."""
    blocks = re.findall(r"```sh\n(.*?)```", (TUTORIAL / page).read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def environment(command: str, ports: dict[str, int]) -> tuple[dict[str, str], list[str]]:
    """Split a command into its environment and its arguments, with free ports."""
    for written, port in ports.items():
        command = command.replace(written, str(port))
    words = command.split()
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    return os.environ | variables, [word for word in words if "=" not in word]


@contextlib.asynccontextmanager
async def served(command: str, ports: dict[str, int], port: int) -> AsyncIterator[None]:
    """Run a ``uvicorn`` command of the tutorial until it listens; end it with Ctrl-C."""
    variables, words = environment(command, ports)
    if "--port" not in words:
        words += ["--port", str(port)]
    command_line = (sys.executable, "-m", *words)
    async with running(
        *command_line, environment=variables, folder=SNIPPETS / "tutorial"
    ) as process:
        await process.line(rf"running on http://127\.0\.0\.1:{port}")
        yield
        process.signal(signal.SIGINT)
        await process.end()


@pytest.mark.e2e
async def test_commands_of_the_first_page_end_in_a_working_gateway() -> None:
    """The page's commands start two services and the gateway, and its request succeeds."""
    ports = {"9001": free_port(), "9002": free_port(), "8000": free_port()}
    first, second = (line for line in commands("index.md") if line.startswith("uvicorn"))
    mount = next(line for line in commands("mount.md") if "uvicorn mount:app" in line)
    _, ask = environment(
        next(line for line in commands("mount.md") if line.startswith("curl")), ports
    )
    async with (
        served(first, ports, ports["9001"]),
        served(second, ports, ports["9002"]),
        served(mount, ports, ports["8000"]),
        httpx.AsyncClient(trust_env=False) as client,
    ):
        served_by = {(await client.get(ask[-1])).json()["served_by"] for _ in range(40)}

    assert served_by == {ports["9001"], ports["9002"]}


@pytest.mark.e2e
async def test_command_for_the_websocket_sends_a_line() -> None:
    """The client of the page shows what the service heard."""
    ports = {"9001": free_port(), "9002": free_port(), "8000": free_port()}
    first = next(line for line in commands("index.md") if line.startswith("uvicorn"))
    mount = next(line for line in commands("mount.md") if "uvicorn mount:app" in line)
    command = next(line for line in commands("mount.md") if line.startswith("python -m"))
    _, words = environment(command, ports)
    async with (
        served(first, ports, ports["9001"]),
        served(mount, ports, ports["8000"]),
    ):
        client = await asyncio.create_subprocess_exec(
            sys.executable,
            *words[1:],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"hello\n")
        async with asyncio.timeout(60):
            heard = await client.stdout.readuntil(b"billing heard hello")
            await client.communicate(b"")  # ends its input

    assert heard


@pytest.mark.e2e
async def test_command_for_the_script_prints_the_total() -> None:
    """The command names the address, without which the script has no upstream."""
    ports = {"9001": free_port()}
    first = next(line for line in commands("index.md") if line.startswith("uvicorn"))
    command = next(line for line in commands("call.md") if line.endswith("script.py"))
    variables, words = environment(command, ports)
    script = str(SNIPPETS / "how_to" / words[-1])
    async with (
        served(first, ports, ports["9001"]),
        running(sys.executable, script, environment=variables) as process,
    ):
        status = await process.end()

    assert (status, process.lines) == (0, ["70"])


@pytest.mark.e2e
async def test_command_that_checks_the_class_probes_both_services() -> None:
    """The path of the probe comes from the class, and the addresses from the environment."""
    ports = {"9001": free_port(), "9002": free_port()}
    first, second = (line for line in commands("index.md") if line.startswith("uvicorn"))
    command = next(line for line in commands("configure.md") if "check" in line)
    addresses = ",".join(f"http://127.0.0.1:{port}" for port in ports.values())
    async with (
        served(first, ports, ports["9001"]),
        served(second, ports, ports["9002"]),
        running(
            *(sys.executable, "-m", "fastapi_proxy_di", *command.split()[1:]),
            environment={"UPSTREAM_BILLING_DESTINATIONS": addresses},
            folder=SNIPPETS / "tutorial",
        ) as process,
    ):
        status = await process.end()

    assert status == 0
    assert sum("GET /health" in line and " ok " in line for line in process.lines) == 2


@pytest.mark.parametrize("page", ["mount", "inject", "call", "configure"])
def test_pages_name_the_file_that_their_command_runs(page: str) -> None:
    """A reader saves the page's code under the name that uvicorn gets."""
    text = (TUTORIAL / f"{page}.md").read_text()

    assert f"Save this as `{page}.py`" in text
    assert re.search(rf"uvicorn {page}:app", text)


@pytest.mark.e2e
def test_wrong_settings_stop_the_app_with_one_message() -> None:
    """The error of the last command on the configuration page names both variables."""
    wrong = next(line for line in commands("configure.md") if "ftp://x" in line)
    env, words = environment(wrong, {})
    run = subprocess.run(
        [sys.executable, "-m", *words, "--port", str(free_port())],
        cwd=SNIPPETS / "tutorial",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode != 0
    assert "UPSTREAM_BILLING_DESTINATIONS" in run.stderr
    assert "UPSTREAM_BILLING_POLICY" in run.stderr
