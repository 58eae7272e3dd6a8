"""Names the files and directories that settings are read from."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Final

from fastapi_proxy_di.settings.layered import LayeredSettings

__all__ = ["settings_files"]

_KEYS: Final = ("env_file", "secrets_dir", "toml_file", "yaml_file", "json_file")


def settings_files(settings_cls: type[LayeredSettings]) -> tuple[Path, ...]:
    """Give the files and secrets directories that ``model_config`` names, also missing ones.

    Args:
        settings_cls: A class with a name, or that of the settings of an app.
    """
    config = settings_cls.model_config
    return tuple(path for key in _KEYS for path in _paths(config.get(key)))


def _paths(place: object) -> Iterable[Path]:
    if place is None:
        return ()
    if isinstance(place, str | PathLike):
        return (Path(place).expanduser(),)
    assert isinstance(place, Iterable)  # as pydantic-settings wants it
    return [Path(one).expanduser() for one in place]
