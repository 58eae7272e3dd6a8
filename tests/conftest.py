"""Fixtures and hooks of all tests: isolation from the machine and between tests, no skips in CI."""

import logging
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from typing import Final, NoReturn

import hypothesis
import pytest
import uvicorn
from hypercorn.config import Config as HypercornConfig

_LOGGERS: Final = (
    None,  # the root, whose level Litestar sets
    "fastapi_proxy_di",
    "fastapi_proxy_di.access",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.error",
)

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

# Shells ignore SIGINT in what they start in the background, and processes hand that down: the
# commands that tests start and interrupt would never hear of it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> Iterator[None]:
    """Hide the machine's upstream settings and HTTP proxies from every test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            upper = name.upper()
            if upper.startswith("UPSTREAM_") or upper.endswith("_PROXY"):
                patch.delenv(name)
        yield


def _refuse(*_: object, **__: object) -> NoReturn:
    pytest.fail("a test that starts a server or a process is marked e2e")


@pytest.fixture(autouse=True)
def _no_servers_without_the_mark(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail a test that starts a server or a process and is not marked e2e."""
    if request.node.get_closest_marker("e2e") is None:
        for kind in (uvicorn.Server, HypercornConfig, subprocess.Popen):
            monkeypatch.setattr(kind, "__init__", _refuse)


@pytest.fixture
def default_sighup() -> Iterator[None]:
    """Let SIGHUP have its default, also for children, if the tests run below nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Undo the logging that commands, servers and other frameworks configure for the process."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(one.level, list(one.handlers), one.propagate) for one in loggers]
    yield
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where ``TESTS_MUST_NOT_SKIP`` is set, as in continuous runs.

    A developer without nginx may skip the tests that need it; a run that decides on a
    change may not.
    """
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("TESTS_MUST_NOT_SKIP"):
        report.outcome = "failed"
    return report
