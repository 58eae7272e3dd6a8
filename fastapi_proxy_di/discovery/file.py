"""Reads destinations from a file, and watches the file.

The file is read every second and compared, which sees every way in which a file changes: written
in place, replaced by another one, or reached through a symbolic link that now leads elsewhere, as
Kubernetes does with ConfigMaps. A change counts when two reads a quarter of a second apart are
equal, so a file that is just being written is not read halfway.
"""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from fastapi_proxy_di.discovery.protocol import DiscoveryError, Search
from fastapi_proxy_di.settings import Destinations, DestinationSettings
from fastapi_proxy_di.settings.plain_messages import plain_message
from fastapi_proxy_di.wire.source_address import SourceAddress

__all__ = ["check_file", "file_source"]

LOOK_SECONDS: Final = 1.0
"""Seconds between two reads, unless ``discovery.refresh`` is set."""
SETTLE_SECONDS: Final = 0.25
"""Seconds in which a file that has changed must stay as it is."""
LARGEST_BYTES: Final = 10_000_000
"""A larger file is no list of destinations, and reading it would hold up requests."""


class _File(BaseModel):
    destinations: Destinations

    model_config = {"extra": "forbid", "hide_input_in_errors": True}


def check_file(address: SourceAddress) -> None:
    """Check that the format of a file can be read.

    Raises:
        ValueError: The package that reads it is not installed.
    """
    try:
        _ = _parser(address.path)
    except ModuleNotFoundError:
        raise ValueError(
            f"destinations: {address.shown} needs the package PyYAML; run pip install pyyaml, or"
            " write the file as TOML or JSON"
        ) from None


async def file_source(search: Search, /) -> AsyncIterator[Sequence[DestinationSettings]]:
    """Give the destinations of a file each time its content changes."""
    path = Path(search.address.path)
    known: bytes | None = None
    while True:
        content = _content(path)
        while content != known:
            await asyncio.sleep(SETTLE_SECONDS)
            known, content = content, _content(path)
            if content == known:
                yield _destinations(path, content)
        await search.pause(LOOK_SECONDS)


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise _fault(f"there is no file {path}")
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise _fault(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST_BYTES:
        raise _fault(f"{path} has more than {LARGEST_BYTES} bytes")
    return content


def _destinations(path: Path, content: bytes) -> Sequence[DestinationSettings]:
    try:
        read = _parser(str(path))(content.decode("utf-8"))
    # Each format raises its own errors, and those of YAML are plain Exceptions.
    except Exception as error:
        raise _fault(f"{path} cannot be read: {_said(error)}") from error
    if not isinstance(read, Mapping) or "destinations" not in read:
        raise _fault(f"{path} has no destinations = [...] at its top")
    if not read["destinations"]:
        return ()
    try:
        # Types promise less: validation has made settings of all texts.
        found: Any = _File.model_validate(read).destinations
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        text = fault["ctx"]["error"] if fault["type"] == "value_error" else plain_message(fault)
        raise _fault(f"{path}: {place}: {text}") from error
    return tuple(found)


def _fault(reason: str) -> DiscoveryError:
    """Make the failure of a file, which is read again as soon as a good one is."""
    return DiscoveryError(reason, retry_after=LOOK_SECONDS)


def _said(error: Exception) -> str:
    """Give a parser's message without the content of the file, which YAML's would quote."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is not None and mark is not None:
        return f"{problem} (at line {mark.line + 1})"
    return str(error)


def _parser(path: str) -> Callable[[str], Any]:
    if path.lower().endswith(".toml"):
        return tomllib.loads
    if path.lower().endswith(".json"):
        return json.loads
    import yaml  # noqa: PLC0415  # it is optional

    return yaml.safe_load
