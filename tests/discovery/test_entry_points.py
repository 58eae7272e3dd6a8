"""Sources by scheme: the built-in ones, and plug-ins by real entry points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from fastapi_proxy_di.discovery import records
from fastapi_proxy_di.discovery.entry_points import source_of
from fastapi_proxy_di.discovery.file import file_source
from fastapi_proxy_di.discovery.records import dns_source as by_dns
from fastapi_proxy_di.wire.source_address import parse_source
from tests.discovery.plug_in import installed
from tests.discovery.samples import at


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("dns+http://a", by_dns),
        ("srv+https://_a._tcp.a", by_dns),
        ("file:///a.toml", file_source),
    ],
)
def test_built_in_sources_need_no_plug_in(url: str, expected: Callable[..., object]) -> None:
    """By the prefix of their scheme."""
    assert source_of(parse_source(url)) is expected


def test_plug_in_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is the prefix of the scheme."""
    installed(tmp_path, monkeypatch, "def find(search): ...\n", registry="find")
    for url in ("registry://a/b", "registry+https://a/b"):
        source = at(url).source

        assert source is not None
        assert getattr(source_of(source), "__name__", "") == "find"


def test_unknown_scheme_names_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built-in ones and those of plug-ins."""
    installed(tmp_path, monkeypatch, "", registry="find")
    with pytest.raises(ValidationError, match="has the scheme 'consul'; use http") as caught:
        at("consul://me:s3cret@a")

    for text in ("dns+http", "srv+https", "file, registry", "fastapi_proxy_di.discovery"):
        assert text in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("find = 5", "is no function, but int"),
        ("", "cannot be loaded: .*has no attribute 'find'"),
        ("raise RuntimeError('no registry')", "cannot be loaded: no registry"),
    ],
)
def test_plug_in_that_cannot_be_loaded_is_a_fault(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text begins with the setting."""
    installed(tmp_path, monkeypatch, code, registry="find")
    with pytest.raises(ValueError, match=f"^destinations: the plug-in 'registry' .*{message}"):
        source_of(parse_source("registry://a"))


def test_dns_without_its_extra_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text begins with the setting, and names the extra."""

    def missing() -> None:
        raise ValueError("needs the extra dns")

    monkeypatch.setattr(records, "Names", missing)
    with pytest.raises(ValueError, match=r"^destinations: needs the extra dns"):
        source_of(parse_source("dns+http://a"))
