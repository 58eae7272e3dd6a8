"""``--env-file``: what is read, what wins, what is a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastapi_proxy_di import SettingsError
from fastapi_proxy_di.cli import main
from fastapi_proxy_di.cli.env_files import add_other_variables, add_variables, read_variables


def written(folder: Path, name: str, text: str) -> Path:
    """Write a file."""
    file = folder / name
    file.write_text(text)
    return file


def test_environment_wins_and_later_files_override(tmp_path: Path) -> None:
    """As with other programs that take several of them."""
    one = written(tmp_path, "one.env", "A=1\nB=1\nC=1\n")
    two = written(tmp_path, "two.env", "# a comment\nB=2\nexport C='2'\nEMPTY\n")
    environment = {"C": "0"}

    add_variables([one, two], environment)

    assert environment == {"A": "1", "B": "2", "C": "0"}


def test_variables_of_upstreams_are_left_to_their_settings(tmp_path: Path) -> None:
    """A reload reads them anew, so that the environment must not have them."""
    file = written(tmp_path, "a.env", "UPSTREAM_BILLING_POLICY=first\nFASTAPI_PROXY_RELOAD=watch\n")
    environment: dict[str, str] = {}
    add_other_variables([file], environment)

    assert environment == {"FASTAPI_PROXY_RELOAD": "watch"}


def test_file_that_is_missing_is_a_fault(tmp_path: Path) -> None:
    """The message names it."""
    with pytest.raises(SettingsError, match=r"no\.env cannot be read: No such file"):
        read_variables([tmp_path / "no.env"])


def test_file_of_other_bytes_is_a_fault(tmp_path: Path) -> None:
    """Its content is not in the message."""
    file = tmp_path / "a.env"
    file.write_bytes(b"KEY=geheim\xff")

    with pytest.raises(SettingsError, match="is not UTF-8 text") as caught:
        read_variables([file])
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("command", ["serve", "check"])
def test_commands_report_a_missing_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, no traceback."""
    status = main([command, "billing", "--env-file", str(tmp_path / "no.env")])

    assert status == 2
    assert capsys.readouterr().err.endswith("no.env cannot be read: No such file or directory\n")


def test_check_reads_its_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults name them as those of the environment."""
    monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "first")
    text = "UPSTREAM_BILLING_POLICY=fastest\nUPSTREAM_BILLING_DESTINATIONS=ftp://x\n"
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "")
    monkeypatch.delenv("UPSTREAM_BILLING_DESTINATIONS")  # and it is taken away again at the end
    status = main(["check", "billing", "--env-file", str(written(tmp_path, "a.env", text))])

    error = capsys.readouterr().err
    assert status == 2
    assert "UPSTREAM_BILLING_DESTINATIONS" in error
    assert "fastest" not in error
