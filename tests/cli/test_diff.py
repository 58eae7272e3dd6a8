"""``check --diff``: the settings that a reload would change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastapi_proxy_di.cli import main

OLD = """
UPSTREAM_BILLING_DESTINATIONS=http://10.0.0.1,http://10.0.0.2
UPSTREAM_BILLING_TIMEOUTS__TOTAL=10s
UPSTREAM_BILLING_REQUEST_HEADERS__X_KEY=geheim
UPSTREAM_BILLING_POLICY=first
"""
NEW = """
UPSTREAM_BILLING_DESTINATIONS=http://10.0.0.2,http://10.0.0.3
UPSTREAM_BILLING_TIMEOUTS__TOTAL=20s
UPSTREAM_BILLING_REQUEST_HEADERS__X_KEY=geheimer
UPSTREAM_BILLING_POLICY=random
FASTAPI_PROXY_REQUEST_ID=true
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options with an old and a new file."""
    old, new = tmp_path / "old.env", tmp_path / "new.env"
    old.write_text(OLD)
    new.write_text(NEW)
    return ["--env-file", str(new), "--diff", str(old)]


def test_differences_are_shown_without_secrets(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable of the environment overrides both files; the environment stays as it was."""
    monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "round_robin")
    before = dict(os.environ)
    status = main(["check", "billing", *files])

    shown = capsys.readouterr()
    rows = [line.split(maxsplit=2) for line in shown.out.splitlines()]
    assert status == 0
    assert [(upstream, field, values.split()) for upstream, field, values in rows] == [
        ("upstream", "setting", ["before", "after"]),
        ("billing", "destinations", ["http://10.0.0.1", "-"]),
        ("billing", "destinations", ["-", "http://10.0.0.3"]),
        ("billing", "timeouts.total", ["10.0", "20.0"]),
        ("billing", "request_headers.x-key", ["(not", "shown)", "(not", "shown)"]),
        ("(app)", "request_id", ["False", "True"]),
    ]
    assert "geheim" not in shown.out + shown.err
    assert dict(os.environ) == before


def test_same_settings_do_not_differ(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line says so."""
    status = main(["check", "billing", "--env-file", files[3], "--diff", files[3]])

    assert status == 0
    assert capsys.readouterr().out == "No setting differs.\n"


def test_faults_of_both_sides_are_reported(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the old file with its name."""
    Path(files[1]).write_text("UPSTREAM_BILLING_DESTINATIONS=ftp://x\nFASTAPI_PROXY_REQUEST_ID=x\n")
    Path(files[3]).write_text("")
    status = main(["check", "billing", *files])

    error = capsys.readouterr().err
    assert status == 2
    assert "- upstream 'billing': destinations" in error
    assert "FASTAPI_PROXY_REQUEST_ID" in error
    assert (
        f"- {files[3]}: upstream 'billing': destinations (UPSTREAM_BILLING_DESTINATIONS)" in error
    )


def test_file_that_is_missing_is_reported(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2 and one line."""
    status = main(["check", "billing", *files[:2], "--diff", "no.env"])

    assert status == 2
    assert capsys.readouterr().err == "no.env cannot be read: No such file or directory\n"
