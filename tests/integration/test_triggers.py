"""An app reloads by itself: when a file changes, or on SIGHUP where that is possible."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di import (
    ProxySettings,
    SettingsError,
    Upstream,
    UpstreamSettings,
    proxy_lifespan,
    proxy_router,
)
from fastapi_proxy_di.integration import triggers, watching
from fastapi_proxy_di.integration.lifespan import RUNTIME
from tests.support.gateways import until
from tests.support.processes import running
from tests.support.servers import free_port

URL = 'destinations = ["http://127.0.0.1:1"]\n'


@asynccontextmanager
async def reloading(trigger: str, file: Path) -> AsyncIterator[FastAPI]:
    """Run an app whose upstream ``orders`` is read from a file."""

    class Orders(UpstreamSettings, name="orders"):
        """Read from a file."""

        model_config = SettingsConfigDict(toml_file=file)

    app = FastAPI()
    app.include_router(proxy_router(Orders))
    proxy_lifespan.configure(app, ProxySettings(reload=trigger))
    async with proxy_lifespan(app):
        yield app


def write(file: Path, text: str) -> None:
    """Write the settings."""
    file.write_text(text)


def slow_start(app: FastAPI) -> float:
    """Give the setting that the tests change."""
    return Upstream("orders").of(app).settings.slow_start


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the file of settings, and look at it often."""
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watching, "SETTLED_SECONDS", 0.01)
    path = tmp_path / "orders.toml"
    path.write_text(URL)
    return path


async def test_changed_file_is_reloaded(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A faulty file changes nothing and is logged; the next good one is in force."""
    async with reloading("watch", file) as app:
        write(file, URL + "slow_start = 5\n")
        await until(lambda: slow_start(app) == 5)
        write(file, "slow_start = ")
        await until(lambda: "nothing is reloaded" in caplog.text)
        kept = slow_start(app)
        write(file, URL + "slow_start = 6\n")
        await until(lambda: slow_start(app) == 6)

    assert kept == 5
    assert not [task for task in asyncio.all_tasks() if "watch" in task.get_name()]


async def test_watch_goes_on_after_a_surprise(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a reload raises is logged, and the next change is read."""
    async with reloading("watch", file) as app:
        reloader = getattr(app, RUNTIME).reloader
        reload: Callable[[], Any] = reloader.reload

        async def fails() -> None:
            monkeypatch.setattr(reloader, "reload", reload)
            raise KeyError("surprise")

        monkeypatch.setattr(reloader, "reload", fails)
        write(file, URL + "slow_start = 5\n")
        await until(lambda: "failed unexpectedly" in caplog.text)
        write(file, URL + "slow_start = 6\n")
        await until(lambda: slow_start(app) == 6)


@pytest.mark.usefixtures("default_sighup")
async def test_sighup_reloads(file: Path) -> None:
    """The handler is there while the app runs, and the system's own one afterwards."""
    async with reloading("signal", file) as app:
        write(file, URL + "slow_start = 5\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: slow_start(app) == 5)

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def _in_thread(file: Path) -> str:
    async def run() -> str:
        with pytest.raises(SettingsError) as fault:
            async with reloading("signal", file):
                pass
        return str(fault.value)

    return asyncio.run(run())


async def test_signal_needs_the_main_thread(file: Path) -> None:
    """The start fails in another thread, and says what to use."""
    text = await asyncio.to_thread(_in_thread, file)

    assert text.endswith(
        "ProxySettings: reload (FASTAPI_PROXY_RELOAD): signal needs a lone uvicorn or `serve`"
        " without workers, and this app does not run in the main thread; use watch"
    )


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (lambda m: m.delattr(signal, "SIGHUP"), "this system has no SIGHUP"),
        (
            lambda m: m.setattr(multiprocessing, "parent_process", object),
            "this process is a worker of another one",
        ),
        (lambda m: m.setattr(sys, "argv", ["/bin/hypercorn"]), "hypercorn uses SIGHUP itself"),
        (
            lambda m: m.setattr(sys, "argv", ["/lib/granian/__main__.py"]),
            "granian uses SIGHUP itself",
        ),
        (
            lambda m: m.setenv("SERVER_SOFTWARE", "gunicorn/23.0"),
            "gunicorn uses SIGHUP itself",
        ),
        (
            lambda m: m.setattr(signal, "getsignal", lambda _: signal.SIG_IGN),
            "SIGHUP is ignored here, as by nohup",
        ),
        (
            lambda m: m.setattr(signal, "getsignal", lambda _: print),
            "this process handles SIGHUP already",
        ),
    ],
)
def test_signal_is_refused_elsewhere(
    monkeypatch: pytest.MonkeyPatch, patch: Callable[[pytest.MonkeyPatch], None], reason: str
) -> None:
    """Where SIGHUP means something else, the fault names it and `watch`."""
    patch(monkeypatch)
    faults = triggers.trigger_faults("signal")
    monkeypatch.undo()

    assert len(faults) == 1
    assert f"and {reason}; use watch" in faults[0]


def test_other_triggers_have_no_faults() -> None:
    """`watch` and `off` work everywhere."""
    assert (triggers.trigger_faults("watch"), triggers.trigger_faults("off")) == ([], [])


def test_yaml_writes_off_as_false() -> None:
    """YAML makes a boolean of the word."""
    assert ProxySettings(reload=False).reload == "off"


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.usefixtures("default_sighup")
async def test_lone_uvicorn_reloads_on_sighup(tmp_path: Path) -> None:
    """The process goes on, with the settings of the file as it is now."""
    (tmp_path / "main.py").write_text(
        "from fastapi import FastAPI\n"
        "from pydantic_settings import SettingsConfigDict\n"
        "from fastapi_proxy_di import UpstreamSettings, proxy_router\n"
        'class Orders(UpstreamSettings, name="orders"):\n'
        '    model_config = SettingsConfigDict(toml_file="orders.toml")\n'
        "app = FastAPI()\n"
        "app.include_router(proxy_router(Orders))\n"
    )
    (tmp_path / "orders.toml").write_text(URL)
    words = ["-m", "uvicorn", "main:app", "--port", str(free_port())]
    environment = {"FASTAPI_PROXY_RELOAD": "signal"}
    async with running(sys.executable, *words, environment=environment, folder=tmp_path) as process:
        await process.line("Application startup complete")
        (tmp_path / "orders.toml").write_text("policy = 3\n")
        os.kill(process.pid, signal.SIGHUP)
        await process.line("nothing is reloaded")

        assert process.status is None
