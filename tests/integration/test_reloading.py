"""All settings of an app are read anew and put in force together, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di import (
    ProxyNotStarted,
    ProxySettings,
    Reloaded,
    ReloadFailed,
    SettingsError,
    Upstream,
    UpstreamSettings,
    proxy_app,
    proxy_lifespan,
    proxy_router,
    proxy_upstream,
    reload_upstreams,
)
from fastapi_proxy_di.integration.lifespan import RUNTIME
from fastapi_proxy_di.integration.reloading import FIXED_OF_APP
from fastapi_proxy_di.settings.proxy import ProxySettings as SettingsOfApp
from fastapi_proxy_di.supervision.events import Event
from tests.upstream.test_reloading_fields import OF_THE_APP


class App:
    """An app with an upstream of the environment, and one that is declared with a file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Orders(UpstreamSettings, name="orders"):
            """Read from a file; the environment comes before it."""

            model_config = SettingsConfigDict(toml_file=folder / "orders.toml")

        self.file = folder / "orders.toml"
        self.env = monkeypatch
        self.write('destinations = ["http://127.0.0.1:2"]')
        self.set("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:1")
        self.app = FastAPI()
        self.app.include_router(proxy_router("billing"), prefix="/billing")
        self.app.include_router(proxy_router(Orders), prefix="/orders")
        self.events: list[Event] = []

    def set(self, name: str, value: str) -> None:
        """Set a variable."""
        self.env.setenv(name, value)

    def write(self, text: str) -> None:
        """Write the file."""
        self.file.write_text(text)

    def settings(self, name: str) -> UpstreamSettings:
        """Give the settings in force."""
        return Upstream(name).of(self.app).settings

    async def reload(self) -> dict[str, tuple[str, ...]]:
        """Read the settings anew."""
        return await reload_upstreams(self.app)


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    """Run the app."""
    made = App(tmp_path, monkeypatch)
    async with proxy_lifespan(made.app):
        getattr(made.app, RUNTIME).events.subscribe(made.events.append)
        yield made


async def test_environment_and_files_are_read_anew(app: App) -> None:
    """Both upstreams change at once, and each tells its own change."""
    app.set("UPSTREAM_BILLING_TIMEOUTS__TOTAL", "7")
    app.write('destinations = ["http://127.0.0.1:3"]\nmax_requests = 9\n')
    changed = await app.reload()

    assert changed == {"billing": ("timeouts.total",), "orders": ("destinations", "max_requests")}
    assert app.settings("billing").timeouts.total == 7
    assert app.settings("orders").max_requests == 9
    assert [one.url for one in Upstream("orders").of(app.app).destinations] == [
        "http://127.0.0.1:3"
    ]
    assert {type(event) for event in app.events if event.upstream == "billing"} == {Reloaded}


async def test_reload_without_changes_is_silent(app: App) -> None:
    """Nothing has changed, and nobody hears of it."""
    assert await app.reload() == {"billing": (), "orders": ()}
    assert app.events == []


async def test_one_fault_anywhere_changes_nothing(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """Faults of reading and of making are in one record, as at the start; all upstreams stay."""
    app.set("UPSTREAM_BILLING_TIMEOUTS__TOTAL", "never")
    app.write('destinations = ["http://127.0.0.1:3"]\npolicy = "no.such:Policy"\n')
    with pytest.raises(SettingsError) as fault:
        await app.reload()
    text = str(fault.value)

    assert "upstream 'billing': timeouts.total (UPSTREAM_BILLING_TIMEOUTS__TOTAL)" in text
    assert "upstream 'orders': policy (in " in text
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.getMessage() for record in errors] == [f"nothing is reloaded. {text}"]
    assert [type(event) for event in app.events] == [ReloadFailed, ReloadFailed]
    assert {event.upstream for event in app.events} == {"billing", "orders"}
    orders = Upstream("orders").of(app.app)
    assert [one.url for one in orders.destinations] == ["http://127.0.0.1:2"]
    app.set("UPSTREAM_BILLING_TIMEOUTS__TOTAL", "8")
    app.write('destinations = ["http://127.0.0.1:3"]\n')
    assert await app.reload() == {"billing": ("timeouts.total",), "orders": ("destinations",)}


async def test_faults_of_the_app_count(app: App) -> None:
    """The settings of the app are read as well."""
    app.set("FASTAPI_PROXY_TELEMETRY__TRACING", "maybe")
    with pytest.raises(SettingsError, match=r"ProxySettings: telemetry\.tracing"):
        await app.reload()


async def test_field_that_the_environment_sets_stays(app: App) -> None:
    """The status says which variable comes before the file."""
    app.set("UPSTREAM_ORDERS_POLICY", "first")
    app.write('destinations = ["http://127.0.0.1:2"]\npolicy = "random"\n')
    changed = await app.reload()
    status = Upstream("orders").of(app.app).status().reload
    app.write('destinations = ["http://127.0.0.1:2"]\n')
    await app.reload()

    assert changed["orders"] == ("policy",)
    assert app.settings("orders").policy == "first"
    assert status.overridden == {"policy": "UPSTREAM_ORDERS_POLICY (environment)"}
    assert Upstream("orders").of(app.app).status().reload.overridden == {}


async def test_telemetry_of_the_app_changes(app: App) -> None:
    """Upstreams that run, and those that are added later, have the new telemetry."""

    class Later(UpstreamSettings, name="later"):
        """Added while the app runs."""

    app.set("FASTAPI_PROXY_TELEMETRY__PROPAGATE", "off")
    await app.reload()
    async with proxy_upstream(app.app, Later(destinations=["http://127.0.0.1:4"])) as later:
        running = [Upstream("billing").of(app.app)._running, later._running]
        found = [one.rules.telemetry.settings.propagate for one in running]
        changed = await app.reload()

    assert found == ["off", "off"]
    assert changed == {"billing": (), "orders": (), "later": ()}


async def test_settings_that_code_gave_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance is code: it was made once, and is not made anew."""

    class Orders(UpstreamSettings, name="orders"):
        """Given as an instance."""

    app = FastAPI()
    app.include_router(proxy_router(Orders(destinations=["http://127.0.0.1:1"])))
    proxy_lifespan.configure(app, ProxySettings())
    async with proxy_lifespan(app):
        monkeypatch.setenv("UPSTREAM_ORDERS_POLICY", "first")
        monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__TRACING", "maybe")

        assert await reload_upstreams(app) == {"orders": ()}
        assert getattr(app, RUNTIME).reloader.files() == ()


async def test_application_that_is_served_alone_is_reloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stands for the app."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:1")
    billing = proxy_app("billing")
    async with billing.running():
        monkeypatch.setenv("UPSTREAM_BILLING_SLOW_START", "5")

        assert await reload_upstreams(billing) == {"billing": ("slow_start",)}


async def test_reloads_of_an_app_run_one_after_the_other(app: App) -> None:
    """Each one reads after the one before has ended."""
    app.set("UPSTREAM_BILLING_SLOW_START", "5")
    first, second = await asyncio.gather(app.reload(), app.reload())

    assert (first["billing"], second["billing"]) == (("slow_start",), ())


async def test_app_that_does_not_run() -> None:
    """The error says so, before the start and during it."""
    app = FastAPI()
    with pytest.raises(ProxyNotStarted, match="no settings to reload"):
        await reload_upstreams(app)
    async with proxy_lifespan(app):
        getattr(app, RUNTIME).reloader = None
        with pytest.raises(ProxyNotStarted, match="still starting"):
            await reload_upstreams(app)


def test_fixed_settings_of_the_app() -> None:
    """Each setting of the app changes, or is in the list with a reason."""
    fields = set(SettingsOfApp.model_fields) - {"telemetry"}

    assert fields | OF_THE_APP == FIXED_OF_APP.keys() | OF_THE_APP
    assert all(len(reason.split()) > 5 for reason in FIXED_OF_APP.values())


async def test_files_are_those_of_the_classes_and_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are missing are named too, since they may come."""
    (tmp_path / "secrets").mkdir()

    class Orders(UpstreamSettings, name="orders"):
        """With every kind of file."""

        model_config = SettingsConfigDict(
            env_file=(tmp_path / ".env", str(tmp_path / "other.env")),
            secrets_dir=tmp_path / "secrets",
            yaml_file=tmp_path / "no.yaml",
        )

    (tmp_path / ".env").write_text(
        f"UPSTREAM_ORDERS_DESTINATIONS=http://a\nUPSTREAM_ORDERS_TLS__CA_FILE={__file__}\n"
    )
    app = FastAPI()
    app.include_router(proxy_router(Orders))
    async with proxy_lifespan(app):
        files = getattr(app, RUNTIME).reloader.files()

    assert files == (
        tmp_path / ".env",
        tmp_path / "other.env",
        tmp_path / "secrets",
        tmp_path / "no.yaml",
        Path(__file__),
    )
