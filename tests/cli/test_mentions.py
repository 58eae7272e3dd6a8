"""What the command line names: upstreams and settings classes."""

from pathlib import Path

import pytest

from fastapi_proxy_di import SettingsError, UpstreamSettings
from fastapi_proxy_di.cli import main
from fastapi_proxy_di.cli.mentions import named


class Billing(UpstreamSettings, name="billing"):
    """A class to find."""


class Nameless(UpstreamSettings):
    """A base class of others."""


def test_name_and_class_are_mentions() -> None:
    """The class is imported, and has the name of its upstream."""
    found = named(["search", f"{__name__}:Billing"]).mentions

    assert found == {"search": "search", "billing": Billing}


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("no.such.module:Billing", "cannot be imported: ModuleNotFoundError: No module named 'no'"),
        (f"{__name__}:Biling", "cannot be imported: AttributeError: "),
        (f"{__name__}:named", "is not a settings class of an upstream"),
        (f"{__name__}:SettingsError", "is not a settings class of an upstream"),
        (f"{__name__}:Nameless", "is not a settings class of an upstream"),
    ],
)
def test_reference_to_something_else_is_a_fault(
    word: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and the message says what to give."""
    status = main(["check", word])

    assert status == 2
    assert f"{word} {fault}" in capsys.readouterr().err


def test_module_that_raises_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module may raise any exception."""
    (tmp_path / "raises_at_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(SettingsError, match="ZeroDivisionError: division by zero"):
        named(["raises_at_import:Billing"])


def test_upstream_given_twice_is_a_fault() -> None:
    """By its name and by its class."""
    with pytest.raises(SettingsError, match="is upstream 'billing', which is given twice"):
        named(["billing", f"{__name__}:Billing"])
