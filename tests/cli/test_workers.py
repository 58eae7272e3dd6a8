"""``serve --workers``: several processes behind one port."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from fastapi_proxy_di import SettingsError
from fastapi_proxy_di.cli import main, workers
from fastapi_proxy_di.settings import load_all
from tests.support.gateways import until
from tests.support.http_client import fetch, request
from tests.support.origins import ScriptedOrigin
from tests.support.processes import Process, package

pytestmark = pytest.mark.e2e

READY = r"^billing: https?://127\.0\.0\.1:(\d+)/$"


async def started(running: Process, count: int) -> list[int]:
    """Wait until so many workers have started in all, and give their process ids."""
    await until(lambda: len(re.findall("Application startup complete", text(running))) >= count, 90)
    return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", text(running))]


def text(running: Process) -> str:
    """Give what the command has printed."""
    return "\n".join(running.lines)


@pytest.mark.slow
async def test_workers_probe_serve_and_end_in_order() -> None:
    """Each has probes of its own; one that dies is replaced; SIGTERM ends all with 0."""
    async with ScriptedOrigin() as origin:
        environment = {
            "UPSTREAM_BILLING_DESTINATIONS": origin.url,
            "UPSTREAM_BILLING_HEALTH__PATH": "/health",
            "UPSTREAM_BILLING_HEALTH__INTERVAL": "1h",
        }
        words = ("serve", "billing", "--port", "0", "--workers", "2")
        async with package(*words, environment=environment) as running:
            address = ("127.0.0.1", int((await running.line(READY))[1]))
            pids = await started(running, 2)
            probes = [one.target for one in origin.requests].count(b"/health")
            reply = await fetch(address, target="/x")
            os.kill(pids[0], signal.SIGKILL)
            new = await started(running, 3)
            again = await fetch(address, target="/x")
            running.signal(signal.SIGTERM)
            status = await running.end()

    assert probes == 2
    assert (reply.status, again.status, status) == (200, 200, 0)
    assert len(set(new)) == 3
    assert not any("Traceback" in line for line in running.lines)


@pytest.mark.slow
@pytest.mark.parametrize("reload", ["off", "watch"])
async def test_workers_follow_a_changed_file(tmp_path: Path, reload: str) -> None:
    """All of them: on SIGHUP to the command they are replaced, by ``watch`` each reloads."""
    file = tmp_path / "billing.env"
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        file.write_text(f"UPSTREAM_BILLING_DESTINATIONS={one.url}\nFASTAPI_PROXY_RELOAD={reload}\n")
        words = ("serve", "billing", "--port", "0", "--workers", "2", "--env-file", str(file))
        async with package(*words) as running:
            address = ("127.0.0.1", int((await running.line(READY))[1]))
            first = await started(running, 2)
            await fetch(address)
            before = len(one.requests)
            file.write_text(f"UPSTREAM_BILLING_DESTINATIONS={two.url}\n")
            if reload == "watch":
                await until(lambda: text(running).count("has reloaded its settings") == 2, 60)
            else:
                running.signal(signal.SIGHUP)
                await started(running, 4)
                await until(lambda: text(running).count("Finished server process") == 2, 60)
            statuses = {(await fetch(address)).status for _ in range(20)}
            last = await started(running, 2)

    assert (before, len(one.requests), len(two.requests)) == (1, 1, 20)
    assert statuses == {200}
    assert (last == first) == (reload == "watch")


def test_reload_on_a_signal_is_refused_before_workers_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGHUP replaces the workers, also those that ``signal`` would reload."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9")
    monkeypatch.setenv("FASTAPI_PROXY_RELOAD", "signal")
    status = main(["serve", "billing", "--port", "0", "--workers", "2"])

    assert status == 2
    assert "SIGHUP replaces the workers; use watch" in capsys.readouterr().err


@pytest.mark.slow
async def test_workers_are_restarted_by_sighup_without_an_outage() -> None:
    """Uvicorn's own way: each worker is replaced once the next one serves.

    A worker that ends closes connections that have sent nothing yet, so a client may have to open
    another one, as browsers and HTTP libraries do.
    """
    async with ScriptedOrigin() as origin:
        words = ("serve", "billing", "--port", "0", "--workers", "2")
        environment = {"UPSTREAM_BILLING_DESTINATIONS": origin.url}
        async with package(*words, environment=environment) as running:
            address = ("127.0.0.1", int((await running.line(READY))[1]))
            await started(running, 2)
            running.signal(signal.SIGHUP)
            restarted = asyncio.create_task(started(running, 4))
            statuses = set()
            while not restarted.done():
                try:
                    statuses.add((await fetch(address, target="/x")).status)
                except EOFError:
                    statuses.add((await fetch(address, target="/x")).status)
            await restarted
            running.signal(signal.SIGINT)
            status = await running.end()

    assert statuses == {200}
    assert status == 130


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
async def test_tls_is_served(workers: str, tmp_path: Path) -> None:
    """By one process and by several."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key")}
    issued.cert_chain_pems[0].write_to_path(files["cert"])
    issued.private_key_pem.write_to_path(files["key"])
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with ScriptedOrigin() as origin:
        environment = {"UPSTREAM_BILLING_DESTINATIONS": origin.url}
        words = ("--ssl-certfile", str(files["cert"]), "--ssl-keyfile", str(files["key"]))
        async with package(
            "serve", "billing", "--port", "0", "--workers", workers, *words, environment=environment
        ) as running:
            match = await running.line(READY)
            reader, writer = await asyncio.open_connection("127.0.0.1", int(match[1]), ssl=context)
            writer.write(request(target="/x", headers=[(b"Connection", b"close")]))
            reply = await reader.read()
            writer.close()

    assert match[0].startswith("billing: https://")
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert origin.request.one(b"x-forwarded-proto") == b"https"


def test_faults_are_found_before_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that only the start finds; exit status 2."""
    bad = tmp_path / "roots.pem"
    bad.write_text("no certificate")
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "https://127.0.0.1:9")
    monkeypatch.setenv("UPSTREAM_BILLING_TLS__CA_FILE", str(bad))
    status = main(["serve", "billing", "--port", "0", "--workers", "2"])

    assert status == 2
    assert "UPSTREAM_BILLING_TLS__CA_FILE" in capsys.readouterr().err


def test_settings_without_faults_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the app are read as well."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9")
    settings = load_all({"billing": "billing"})
    workers.check_settings(settings)
    monkeypatch.setenv("FASTAPI_PROXY_REQUEST_ID", "perhaps")

    with pytest.raises(SettingsError, match="FASTAPI_PROXY_REQUEST_ID"):
        workers.check_settings(settings)


@dataclass
class Supervised:
    """Stands for uvicorn's supervisor after its end.

    Attributes:
        exitcode: Of its one worker.
        interrupted: Whether Ctrl-C has ended it.
    """

    exitcode: int
    interrupted: bool = False

    def __call__(self, config: object, sockets: object) -> Supervised:
        """Be made."""
        return self

    @property
    def processes(self) -> list[Supervised]:
        """The workers."""
        return [self]

    def run(self) -> None:
        """Have ended."""


def test_worker_that_cannot_start_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn stops all workers then; Ctrl-C is told apart."""
    statuses = []
    with socket.socket() as listening:
        for exitcode in (STARTUP_FAILURE, -signal.SIGTERM, 0):
            monkeypatch.setattr(workers, "_Supervisor", Supervised(exitcode))
            statuses.append(workers.run_workers(uvicorn.Config("a:b"), listening))
        monkeypatch.setattr(workers, "_Supervisor", Supervised(0, interrupted=True))
        with pytest.raises(KeyboardInterrupt):
            workers.run_workers(uvicorn.Config("a:b"), listening)

    assert statuses == [2, 0, 0]
