"""Destinations from files: formats, faults, and each way in which a file changes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fastapi_proxy_di.discovery import file as subject
from fastapi_proxy_di.discovery.file import check_file, file_source
from fastapi_proxy_di.discovery.protocol import DiscoveryError, Search
from fastapi_proxy_di.settings import DestinationSettings, DiscoverySettings
from fastapi_proxy_di.wire.source_address import parse_source
from tests.discovery.samples import at

ONE, TWO = 'destinations = ["http://a"]', 'destinations = ["http://a", "http://b"]'


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SETTLE_SECONDS", 0.01)


@asynccontextmanager
async def lists(path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Give a function that waits for the next list of URLs of a file."""
    search = Search(
        at(f"file://{path}"), DiscoverySettings(refresh=0.01), timeout=5.0, random=Random(1)
    )
    source: Any = file_source(search)

    async def following() -> list[str]:
        found: Sequence[DestinationSettings] = await anext(source)
        return [one.url for one in found]

    yield following
    await source.aclose()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.toml",
            '[[destinations]]\nurl = "http://a"\nweight = 2\n[[destinations]]\nurl="http://b"',
        ),
        ("a.json", '{"destinations": [{"url": "http://a", "weight": 2}, "http://b"]}'),
        ("a.yaml", "destinations:\n- url: http://a\n  weight: 2\n- http://b\n"),
        ("a.YML", "destinations: [{url: 'http://a', weight: 2}, 'http://b']"),
    ],
)
async def test_file_is_read_in_each_format(name: str, content: str, tmp_path: Path) -> None:
    """As addresses, or with weights and limits."""
    path = tmp_path / name
    path.write_text(content)
    check_file(parse_source(f"file://{path}"))
    search = Search(at(f"file://{path}"), DiscoverySettings(), 5.0, Random(1))
    source: Any = file_source(search)

    assert await anext(source) == (at("http://a", weight=2), at("http://b"))
    await source.aclose()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("destinations = [", "a.toml cannot be read: "),
        ("[billing]\ndestinations = []", "has no destinations = \\[...\\] at its top"),
        ("destination = []", "has no destinations"),
        ('destinations = ["http://a", "http://a/"]', "destinations: 'http://a' is given twice"),
        ('destinations = ["a:80"]', "destinations.0.url: 'a:80' has no scheme"),
        ('destinations = ["http://me:s3cret@a"]', "holds credentials"),
        ('destinations = [{url = "http://a", weight = 0}]', "weight: must be more than 0"),
        ("destinations = [\ud800", "cannot be read"),
    ],
)
async def test_wrong_file_is_a_failure(content: str, message: str, tmp_path: Path) -> None:
    """The reason names the place, and shows no secret; a good file is read within a second."""
    path = tmp_path / "a.toml"
    path.write_text(content, errors="surrogatepass")
    async with lists(path) as following:
        with pytest.raises(DiscoveryError, match=message) as caught:
            await following()

    assert "s3cret" not in str(caught.value)
    assert caught.value.retry_after == 1.0


async def test_yaml_fault_shows_no_content(tmp_path: Path) -> None:
    """YAML's own message would quote the line."""
    path = tmp_path / "a.yaml"
    path.write_text("destinations: []\ns3cret: 'x\n")
    async with lists(path) as following:
        with pytest.raises(DiscoveryError, match=r"at line \d") as caught:
            await following()

    assert "s3cret" not in str(caught.value)


async def test_file_that_is_missing_or_too_large_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder, or a file of a gigabyte, is no list."""
    path = tmp_path / "a.toml"
    async with lists(path) as following:
        with pytest.raises(DiscoveryError, match="there is no file"):
            await following()
    path.write_text(ONE)
    monkeypatch.setattr(subject, "LARGEST_BYTES", 5)
    async with lists(path) as following:
        with pytest.raises(DiscoveryError, match="has more than 5 bytes"):
            await following()


async def test_file_that_may_not_be_read_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the machine's reason."""
    path = tmp_path / "a.toml"
    path.write_text(ONE)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    async with lists(path) as following:
        with pytest.raises(DiscoveryError, match="cannot be read: Permission denied"):
            await following()


async def test_empty_list_is_given(tmp_path: Path) -> None:
    """What an empty list means is a setting of discovery."""
    path = tmp_path / "a.toml"
    path.write_text("destinations = []")
    async with lists(path) as following:
        assert await following() == []


def _written(path: Path, content: str) -> None:
    path.write_text(content)


def _replaced(path: Path, content: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(content)
    other.replace(path)


@pytest.mark.parametrize("change", [_written, _replaced])
async def test_change_of_a_file_is_seen(
    change: Callable[[Path, str], None], tmp_path: Path
) -> None:
    """Written in place, or replaced by another file."""
    path = tmp_path / "a.toml"
    path.write_text(ONE)
    async with lists(path) as following:
        assert await following() == ["http://a"]
        change(path, TWO)
        assert await following() == ["http://a", "http://b"]


async def test_swap_of_a_config_map_is_seen(tmp_path: Path) -> None:
    """Kubernetes makes a new folder, and lets the link ``..data`` lead to it."""
    for name, content in (("..1", ONE), ("..2", TWO)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.toml").write_text(content)
    (tmp_path / "..data").symlink_to("..1")
    path = tmp_path / "a.toml"
    path.symlink_to("..data/a.toml")
    async with lists(path) as following:
        assert await following() == ["http://a"]
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        assert await following() == ["http://a", "http://b"]


async def test_file_that_is_being_written_is_not_read_halfway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change counts when two reads are equal."""
    path = tmp_path / "a.toml"
    path.write_text(ONE)
    reads = iter([ONE, ONE, "destinations = [", 'destinations = ["http', TWO, TWO])
    monkeypatch.setattr(subject, "_content", lambda _: next(reads).encode())
    async with lists(path) as following:
        assert await following() == ["http://a"]
        assert await following() == ["http://a", "http://b"]


async def test_file_that_comes_back_is_not_read_halfway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first list after a failure counts when two reads are equal, too."""
    reads = iter(["destinations: [http://a]", *["destinations: [http://a, http://b]"] * 2])
    monkeypatch.setattr(subject, "_content", lambda _: next(reads).encode())
    async with lists(tmp_path / "a.yaml") as following:
        assert await following() == ["http://a", "http://b"]


def test_yaml_without_its_package_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text names the package; other formats need none."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    check_file(parse_source("file:///a.json"))
    with pytest.raises(ValueError, match=r"destinations: file:///a.yaml needs the package PyYAML"):
        check_file(parse_source("file:///a.yaml"))
