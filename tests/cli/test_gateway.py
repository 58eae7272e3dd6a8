"""The application of ``serve`` in a worker: it starts its upstreams by the server's lifespan."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from fastapi_proxy_di import SettingsError
from fastapi_proxy_di.cli.gateway import WorkerGateway, mount_of
from fastapi_proxy_di.integration.runtime import Runtime
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import run_app

_close = Runtime.aclose


async def messages_of(app: ASGIApp, *received: str) -> list[Any]:
    """Run a lifespan by hand, and give what the app has sent."""
    left = [{"type": f"lifespan.{kind}"} for kind in received]
    sent: list[Any] = []

    async def receive() -> Any:
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await app({"type": "lifespan"}, receive, send)
    except (SettingsError, OSError) as error:
        sent.append(error)
    return sent


async def _fail(runtime: Runtime) -> None:
    """Stand for a close that fails, after the upstreams have closed."""
    await _close(runtime)
    raise OSError("no more files")


async def test_lifespan_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts and ends the upstreams; the object gets to the worker by pickle."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9")
    made = pickle.loads(pickle.dumps(WorkerGateway(("billing",))))
    sent = await messages_of(made(), "startup", "shutdown")

    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_worker_reads_files_of_variables(tmp_path: Path) -> None:
    """Each time that it starts."""
    file = tmp_path / "a.env"
    file.write_text("UPSTREAM_BILLING_DESTINATIONS=http://127.0.0.1:9\n")
    sent = await messages_of(WorkerGateway(("billing",), (file,))(), "startup", "shutdown")

    assert sent[0]["type"] == "lifespan.startup.complete"


async def test_worker_that_cannot_start_says_why() -> None:
    """The server logs the message, and stops all workers."""
    failed, error = await messages_of(WorkerGateway(("billing",))(), "startup")

    assert failed["type"] == "lifespan.startup.failed"
    assert "UPSTREAM_BILLING_DESTINATIONS" in failed["message"]
    assert isinstance(error, SettingsError)


async def test_worker_that_cannot_close_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a failure of the shutdown, because the start is long over."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9")
    monkeypatch.setattr(Runtime, "aclose", _fail)
    started, failed, error = await messages_of(WorkerGateway(("billing",))(), "startup", "shutdown")

    assert started["type"] == "lifespan.startup.complete"
    assert failed == {"type": "lifespan.shutdown.failed", "message": "no more files"}
    assert isinstance(error, OSError)


@pytest.mark.e2e
async def test_server_logs_why_a_worker_cannot_close(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Instead of an error of its own about the order of messages."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9")
    monkeypatch.setattr(Runtime, "aclose", _fail)
    async with run_app(WorkerGateway(("billing",))()):
        pass

    logged = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert logged == ["no more files", "Application shutdown failed. Exiting."]


@pytest.mark.e2e
async def test_worker_mounts_several_upstreams_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one process does."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", one.url)
        monkeypatch.setenv("UPSTREAM_SEARCH_DESTINATIONS", two.url)
        async with run_app(WorkerGateway(("billing", "search"))()) as running:
            statuses = [
                (await fetch(running.address, target=target)).status
                for target in ("/billing/a", "/search/b", "/other/c")
            ]

    assert statuses == [200, 200, 404]
    assert (one.request.target, two.request.target) == (b"/a", b"/b")


def test_mount_of_one_is_the_root() -> None:
    """Several have their names."""
    assert [mount_of("billing", count) for count in (1, 2)] == ["/", "/billing"]
