"""Warnings where the app configures no logging: to the standard error, with time and level."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from fastapi_proxy_di.observability.last_resort import LastResort
from tests.e2e.servers import uvicorn
from tests.support.gateways import until
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port

_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"


@contextlib.contextmanager
def no_logging() -> Iterator[None]:
    """Take pytest's handlers away from the root, as in an app that configures no logging."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = before


def test_warning_has_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    """One line; nothing below a warning, not even if the logger lets it through."""
    logger = logging.getLogger("fastapi_proxy_di.health")
    logging.getLogger("fastapi_proxy_di").setLevel(logging.INFO)
    with no_logging():
        logger.warning("billing: %s is down", "http://10.0.0.1")
        logger.info("billing: %s is draining", "http://10.0.0.1")

    error = capsys.readouterr().err
    assert re.fullmatch(rf"{_TIME} WARNING billing: http://10\.0\.0\.1 is down\n", error)


@pytest.mark.parametrize(
    "name", [None, "fastapi_proxy_di", "fastapi_proxy_di.test"], ids=["root", "package", "part"]
)
def test_any_other_handler_silences_it(
    name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A handler may be added at any time; one that no record reaches does not count."""
    taken, logger = io.StringIO(), logging.getLogger("fastapi_proxy_di.test")
    handler = logging.StreamHandler(taken)
    with no_logging():
        logging.getLogger(name).addHandler(handler)
        logger.warning("first")
        logging.getLogger(name).removeHandler(handler)
        logger.warning("second")
        logging.getLogger("fastapi_proxy_di").propagate = False
        logging.getLogger().addHandler(handler)
        logger.warning("third")

    assert taken.getvalue() == "first\n"
    assert re.findall(r"WARNING (\w+)", capsys.readouterr().err) == ["second", "third"]


def test_closed_standard_error_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every handler of ``logging``: a log that cannot be written raises nothing."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    monkeypatch.setattr(logging, "raiseExceptions", False)

    with no_logging():
        logging.getLogger("fastapi_proxy_di.health").warning("lost")


def test_importing_the_package_adds_it_once() -> None:
    """To the logger of the package, as libraries add their ``NullHandler``."""
    handlers = logging.getLogger("fastapi_proxy_di").handlers

    assert [type(one) for one in handlers].count(LastResort) == 1


@pytest.mark.e2e
async def test_log_of_uvicorn_says_why_requests_fail() -> None:
    """A destination that refuses: one line, and the number of further requests at the end."""
    dead = f"http://127.0.0.1:{dead_port()}"
    environment = {"UPSTREAM_BILLING_DESTINATIONS": dead}
    async with uvicorn("tests.e2e.gateway:app", environment=environment) as server:
        for _ in range(12):
            assert (await fetch(server.address, target="/billing/x")).status == 502

    ours = [line for line in server.lines if " WARNING " in line]
    assert re.match(
        rf"{_TIME} WARNING billing: a request failed: cannot connect to {dead}", ours[0]
    )
    (repeats,) = (line.partition(" WARNING ")[2] for line in ours[1:])
    assert re.fullmatch(rf"billing: 11 × connect refused by {dead} in \d+ s", repeats)


@pytest.mark.e2e
async def test_log_of_uvicorn_tells_of_recoveries() -> None:
    """A destination that is down and up again is two lines of the same level."""
    status = 503

    async def script(connection: Connection) -> None:
        await always(response_bytes(status))(connection)

    async with ScriptedOrigin(script) as origin:
        environment = {
            "UPSTREAM_BILLING_DESTINATIONS": origin.url,
            "UPSTREAM_BILLING_HEALTH__PATH": "/health",
            "UPSTREAM_BILLING_HEALTH__INTERVAL": "0.05",
        }
        async with uvicorn("tests.e2e.gateway:app", environment=environment) as server:
            await until(lambda: any("is down (status 503)" in line for line in server.lines))
            status = 200
            await server.line(rf"{_TIME} WARNING billing: {origin.url} is up")
            await server.line(rf"{_TIME} WARNING billing has an available destination again")
