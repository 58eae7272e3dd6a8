"""Faults at start are in one message, each with its variable, and nothing is left running."""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from fastapi_proxy_di import Balancer, SettingsError, Upstream, proxy_lifespan, proxy_router
from tests.support.gateways import Billing, gateway_app, until
from tests.support.origins import ScriptedOrigin
from tests.support.servers import StartupFailed, run_app

pytestmark = pytest.mark.e2e


def _app(*names: str) -> FastAPI:
    app = FastAPI()
    for name in names:
        app.include_router(proxy_router(name), prefix=f"/{name}")
    return app


async def _message(app: FastAPI) -> str:
    with pytest.raises(StartupFailed) as caught:
        await run_app(app).__aenter__()
    return str(caught.value)


async def test_every_fault_of_an_upstream_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wrong variables are one message that names both."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "ftp://x")
    monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "fastest")

    message = await _message(_app("billing"))

    assert "UPSTREAM_BILLING_DESTINATIONS" in message
    assert "UPSTREAM_BILLING_POLICY" in message
    assert "billing" in message


async def test_faults_of_every_upstream_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faults of several upstreams are one message too, nested settings included."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://x?query=1")
    monkeypatch.setenv("UPSTREAM_USERS_DESTINATIONS", "http://127.0.0.1:1")
    monkeypatch.setenv("UPSTREAM_USERS_TIMEOUTS__CONNECT", "soon")
    monkeypatch.setenv("UPSTREAM_USERS_HEALTH__FALL", "0")

    message = await _message(_app("billing", "users", "orders"))

    for variable in (
        "UPSTREAM_BILLING_DESTINATIONS",
        "UPSTREAM_USERS_TIMEOUTS__CONNECT",
        "UPSTREAM_USERS_HEALTH__FALL",
        "UPSTREAM_ORDERS_DESTINATIONS",
    ):
        assert variable in message


async def test_fault_that_shows_late_is_named_with_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A policy that cannot be imported is in the same message."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "ftp://x")
    monkeypatch.setenv("UPSTREAM_USERS_DESTINATIONS", "http://127.0.0.1:1")
    monkeypatch.setenv("UPSTREAM_USERS_POLICY", "nowhere.to_be_found:Policy")

    message = await _message(_app("billing", "users"))

    assert "(UPSTREAM_BILLING_DESTINATIONS): 'ftp://x' has the scheme" in message
    assert "policy (UPSTREAM_USERS_POLICY): 'nowhere.to_be_found:Policy' cannot be" in message


async def test_mistyped_variable_is_logged_with_the_near_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One WARNING for each variable that sets nothing; the app starts."""
    async with ScriptedOrigin() as origin:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", origin.url)
        monkeypatch.setenv("UPSTREAM_BILLING_POLICI", "first")
        monkeypatch.setenv("UPSTREAM_BILLING_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv("UPSTREAM_BILLING_EU_DESTINATIONS", origin.url)
        async with run_app(_app("billing", "billing-eu")):
            records = [r for r in caplog.records if r.name == "fastapi_proxy_di.settings"]

    assert [(record.levelname, record.getMessage()) for record in records] == [
        (
            "WARNING",
            (
                "UPSTREAM_BILLING_POLICI sets nothing of upstream 'billing';"
                " did you mean UPSTREAM_BILLING_POLICY?"
            ),
        ),
    ]


async def test_mistyped_variable_is_logged_when_the_start_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the variable that was probably meant."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATION", "http://127.0.0.1:1")

    message = await _message(_app("billing"))

    assert "UPSTREAM_BILLING_DESTINATIONS" in message
    assert "did you mean UPSTREAM_BILLING_DESTINATIONS?" in caplog.text


@pytest.mark.parametrize("mention", [Billing, Billing(destinations=["http://127.0.0.1:1"])])
async def test_mistyped_variable_of_a_declared_upstream_is_logged(
    mention: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A class or an instance has variables as well."""
    monkeypatch.setenv("UPSTREAM_BILLING_POLICI", "first")
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:1")
    app = FastAPI()
    app.include_router(proxy_router(mention), prefix="/billing")

    async with run_app(app):
        assert "did you mean UPSTREAM_BILLING_POLICY?" in caplog.text


async def test_injected_upstream_is_validated_at_start() -> None:
    """Also if only a sub-dependency of an endpoint mentions it."""
    app = FastAPI(lifespan=proxy_lifespan)

    async def client(billing: Annotated[Balancer, Depends(Upstream("billing"))]) -> None:
        """Mention the upstream."""

    @app.get("/x")
    async def x(client: Annotated[None, Depends(client)]) -> None:
        """Depend on a function that mentions the upstream."""

    assert "UPSTREAM_BILLING_DESTINATIONS" in await _message(app)


async def test_secret_in_a_fault_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault does not show credentials of an address."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://user:hunter2@10.0.0.1")

    message = await _message(_app("billing"))

    assert "UPSTREAM_BILLING_DESTINATIONS" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DESTINATIONS", "http://user:geheim@10.0.0.1"),
        ("DESTINATIONS", "http://10.0.0.1?token=geheim"),
        ("REQUEST_HEADERS", '{"authorization": ["geheim"]}'),
        ("REQUEST_HEADERS", '{"authorization": "geheim"'),
        ("AFFINITY", '{"cookie": "lb", "key": "geheim"}'),
        ("HEALTH__HEADERS", '{"authorization": ["geheim"]}'),
    ],
)
async def test_traceback_of_a_failed_start_shows_no_secret(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server prints it, with the causes: pydantic shows the input by default."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://10.0.0.1")
    monkeypatch.setenv(f"UPSTREAM_BILLING_{name}", value)
    app = _app("billing")

    with pytest.raises(SettingsError) as raised:
        async with app.router.lifespan_context(app):
            """Not reached."""

    trace = "".join(traceback.format_exception(raised.value))
    assert "SettingsError" in trace
    assert "geheim" not in trace


async def test_fault_of_a_client_certificate_shows_neither_it_nor_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault has the paths; what the files hold stays out, also of the traceback."""
    for part in ("cert", "key"):
        (tmp_path / part).write_text("-----BEGIN geheim-----\ngeheim\n-----END geheim-----\n")
        monkeypatch.setenv(f"UPSTREAM_BILLING_TLS__CLIENT_{part.upper()}", str(tmp_path / part))
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "https://10.0.0.1")
    app = _app("billing")

    with pytest.raises(SettingsError) as raised:
        async with app.router.lifespan_context(app):
            """Not reached."""

    trace = "".join(traceback.format_exception(raised.value))
    assert "client_cert" in trace
    assert "geheim" not in trace


async def test_fault_of_one_upstream_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """No prober of the valid upstream runs."""
    async with ScriptedOrigin() as origin:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", origin.url)
        monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__PATH", "/health")
        monkeypatch.setenv("UPSTREAM_USERS_DESTINATIONS", "nonsense")
        before = asyncio.all_tasks()
        await _message(_app("billing", "users"))
        await until(lambda: asyncio.all_tasks() <= before)

    assert origin.connections == 0


async def test_later_failure_of_the_start_ends_the_upstreams() -> None:
    """The app's own lifespan fails after ours; tasks and connections end."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with proxy_lifespan(app):
            raise RuntimeError("no database")
            yield

    async with ScriptedOrigin() as origin:
        app = gateway_app(
            origin.url, app=FastAPI(lifespan=lifespan), health={"path": "/health", "interval": 0.05}
        )
        before = asyncio.all_tasks()
        message = await _message(app)
        await origin.all_left()
        await until(lambda: asyncio.all_tasks() <= before)
        probes = len(origin.requests)

    assert "no database" in message
    assert probes == 1


async def test_shutdown_leaves_nothing() -> None:
    """No task, probe or connection is left after the app has ended."""
    async with ScriptedOrigin() as origin:
        before = asyncio.all_tasks()
        app = gateway_app(origin.url, health={"path": "/health", "interval": 0.05})
        async with run_app(app):
            await until(lambda: len(origin.requests) >= 3)
        await origin.all_left()
        await until(lambda: asyncio.all_tasks() <= before)

    assert {seen.target for seen in origin.requests} == {b"/health"}


async def test_source_without_destinations_is_a_fault_at_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message names the variable, the source and the reason, for each upstream."""
    monkeypatch.setattr("fastapi_proxy_di.discovery.discovery.START_SECONDS", 0.05)
    for name in ("billing", "users"):
        monkeypatch.setenv(
            f"UPSTREAM_{name.upper()}_DESTINATIONS", f"file://{tmp_path}/{name}.toml"
        )
    message = await _message(_app("billing", "users"))

    for name in ("billing", "users"):
        assert (
            f"upstream '{name}': destinations (UPSTREAM_{name.upper()}_DESTINATIONS):"
            f" file://{tmp_path}/{name}.toml has no destination after 0.05 s (there is no file"
        ) in message
