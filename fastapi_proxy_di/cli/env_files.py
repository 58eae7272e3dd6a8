"""Reads ``--env-file``: variables of files, which the environment of the process overrides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import new_class
from typing import Final

from dotenv import dotenv_values
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings import Mention, UpstreamSettings

__all__ = [
    "add_other_variables",
    "add_variables",
    "mention_with_files",
    "read_variables",
    "variables_of",
]

_OF_UPSTREAMS: Final = "UPSTREAM_"


def mention_with_files(name: str, paths: Sequence[Path]) -> Mention:
    """Give an upstream whose variables the files may have, so that a reload reads them anew.

    Args:
        name: Name of the upstream.
        paths: The files; a later one overrides an earlier one.
    """
    if not paths:
        return name
    config = SettingsConfigDict(env_file=tuple(paths), env_file_encoding="utf-8")
    return new_class(
        "Served", (UpstreamSettings,), {"name": name}, lambda body: body.update(model_config=config)
    )


def add_other_variables(paths: Iterable[Path], environment: MutableMapping[str, str]) -> None:
    """Set the variables of the files, as `add_variables` does, without those of upstreams.

    Raises:
        SettingsError: A file cannot be read.
    """
    for name, value in read_variables(paths).items():
        if not name.upper().startswith(_OF_UPSTREAMS):
            environment.setdefault(name, value)


def add_variables(paths: Iterable[Path], environment: MutableMapping[str, str]) -> None:
    """Set the variables of the files that the environment does not set.

    Args:
        paths: The files; a later one overrides an earlier one.
        environment: What the variables are added to, usually ``os.environ``.

    Raises:
        SettingsError: A file cannot be read.
    """
    for name, value in read_variables(paths).items():
        environment.setdefault(name, value)


@contextmanager
def variables_of(paths: Iterable[Path]) -> Iterator[None]:
    """Set the variables of the files that the environment does not set, within the block.

    Raises:
        SettingsError: A file cannot be read.
    """
    before = os.environ.copy()
    add_variables(paths, os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


def read_variables(paths: Iterable[Path]) -> dict[str, str]:
    """Read the variables of the files; a later one overrides an earlier one.

    Raises:
        SettingsError: A file cannot be read.
    """
    found: dict[str, str] = {}
    for path in paths:
        try:
            with path.open(encoding="utf-8") as stream:
                values = dotenv_values(stream=stream)
        except OSError as error:
            raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:  # its text may quote a secret
            raise SettingsError(f"{path} cannot be read: it is not UTF-8 text") from error
        found |= {name: value for name, value in values.items() if value is not None}
    return found
