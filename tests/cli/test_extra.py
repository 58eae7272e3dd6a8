"""Missing modules of the extra ``cli``."""

from __future__ import annotations

import sys

import pytest

from fastapi_proxy_di.cli import main
from fastapi_proxy_di.cli.extra import missing_modules


@pytest.mark.parametrize(
    ("command", "blocked", "named"),
    [
        (["demo"], ["uvicorn", "rich"], "uvicorn and rich"),
        (["demo", "--once"], ["rich"], "rich"),
        (["demo"], ["prometheus_client"], "prometheus_client"),
        (["demo-upstream"], ["uvicorn"], "uvicorn"),
        (["serve", "billing"], ["uvicorn"], "uvicorn"),
    ],
)
def test_command_names_the_extra_that_is_missing(
    command: list[str],
    blocked: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A pip command on the standard error, exit status 2, no traceback."""
    for name in blocked:
        block(name, monkeypatch)

    status = main(command)

    assert status == 2
    assert capsys.readouterr().err == (
        f'fastapi-proxy-di {command[0]} needs {named}: pip install "fastapi-proxy-di[cli]"\n'
    )


def test_missing_modules_leaves_out_installed_modules() -> None:
    """Installed modules are not named."""
    assert missing_modules(["json", "no_such_module_anywhere"]) == ["no_such_module_anywhere"]


def block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``import name`` raise ``ModuleNotFoundError``."""
    monkeypatch.setitem(sys.modules, name, None)
