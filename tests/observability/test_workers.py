"""How many workers the server of a process runs, from its command and variables."""

from __future__ import annotations

import logging
import sys

import pytest

from fastapi_proxy_di.observability.workers import warn_of_workers, worker_count

GUNICORN = {"SERVER_SOFTWARE": "gunicorn/23.0.0"}


@pytest.mark.parametrize(
    ("command", "environment", "count"),
    [
        ("uvicorn app:app --workers 2 --port 80", {}, 2),
        ("uvicorn app:app --workers=3", {}, 3),
        ("uvicorn app:app --workers 1", {"WEB_CONCURRENCY": "4"}, 1),
        ("uvicorn app:app", {"WEB_CONCURRENCY": "4"}, 4),
        ("uvicorn app:app", {"WEB_CONCURRENCY": ""}, 1),
        ("uvicorn app:app --reload", {"WEB_CONCURRENCY": "4"}, 1),
        ("fastapi run --workers 2", {}, 2),
        ("gunicorn -w 4 app:app", GUNICORN, 4),
        ("gunicorn -w4 app:app", GUNICORN, 4),
        ("gunicorn app:app", {**GUNICORN, "GUNICORN_CMD_ARGS": "--workers=5 -b :80"}, 5),
        ("gunicorn app:app", GUNICORN, 1),
        ("hypercorn -w 2 app:app", {}, 2),
        ("hypercorn app:app", {"WEB_CONCURRENCY": "4"}, 1),
        ("granian app:app --workers 2", {}, 2),
        ("granian app:app", {"GRANIAN_WORKERS": "3", "WEB_CONCURRENCY": "4"}, 3),
        ("granian app:app --workers-lifetime 60", {}, 1),
    ],
)
def test_workers(command: str, environment: dict[str, str], count: int) -> None:
    """The arguments win over the variables; each server reads its own variable."""
    assert worker_count(command.split(), environment, has_parent=True) == count


def test_process_without_arguments() -> None:
    """As in an embedded Python, whose ``sys.argv`` may be empty."""
    assert worker_count([], {"WEB_CONCURRENCY": "4"}, has_parent=True) == 4
    assert worker_count([], {}, has_parent=True) == 1


def test_process_without_a_parent_is_alone() -> None:
    """Only gunicorn's workers have none, since they are forks; a variable names gunicorn."""
    command = ["script.py", "-w", "4"]

    assert worker_count(command, {"WEB_CONCURRENCY": "4"}, has_parent=False) == 1
    assert worker_count(command, GUNICORN, has_parent=False) == 4


def test_warning_comes_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning says what a scrape sees, and what to do."""
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/23.0.0")
    monkeypatch.setattr(sys, "argv", ["gunicorn", "-w", "3"])
    warn_of_workers.cache_clear()
    with caplog.at_level(logging.WARNING, "fastapi_proxy_di"):
        warn_of_workers()
        warn_of_workers()
    warn_of_workers.cache_clear()

    (record,) = caplog.records
    assert "is one of 3 workers" in record.getMessage()
    assert "run one worker per container or port" in record.getMessage()


def test_no_warning_for_one_process(caplog: pytest.LogCaptureFixture) -> None:
    """As in most containers."""
    warn_of_workers.cache_clear()
    with caplog.at_level(logging.WARNING, "fastapi_proxy_di"):
        warn_of_workers()

    assert not caplog.records
