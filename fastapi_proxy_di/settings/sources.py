"""The sources of settings, in order: code, environment, ``.env``, secrets, files, class.

pydantic-settings reads and decodes. This file adds what its sources do not do: a value that
cannot be decoded becomes a fault like any other instead of an exception, a shared ``.env``
may hold names of other programs, and models given in code are merged field by field.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    JsonConfigSettingsSource,
    PydanticBaseSettingsSource,
    TomlConfigSettingsSource,
    YamlConfigSettingsSource,
)
from pydantic_settings.sources import DotenvType, PathType

from fastapi_proxy_di.errors import SettingsError

if TYPE_CHECKING:
    _Environment = EnvSettingsSource
    _File = InitSettingsSource
else:
    _Environment = _File = object

__all__ = ["Undecodable", "settings_sources"]

HEADER_FIELDS: Final = (("request_headers",), ("response_headers",), ("health", "headers"))
"""The settings that are headers by name: path of the field."""


class Undecodable(str):
    """Text that looks like JSON and is not; faults are described by this type."""

    __slots__ = ()


def _lower_header_names(values: dict[str, Any]) -> dict[str, Any]:
    """Write header names in lower case, so that ``x-a`` replaces another source's ``X-A``."""
    for path in HEADER_FIELDS:
        values = _renamed(values, path, str.lower)
    return values


def _renamed(
    values: dict[str, Any], path: Sequence[str], rename: Callable[[str], str]
) -> dict[str, Any]:
    """Give ``values`` with other keys in the dictionary at ``path``, if there is one."""
    if not path:
        return {rename(str(name)): value for name, value in values.items()}
    within = values.get(path[0])
    if not isinstance(within, dict):
        return values
    return {**values, path[0]: _renamed(within, path[1:], rename)}


class _LenientDecoding(_Environment):
    """Mixin for sources of text: only what starts as JSON is decoded, nothing raises."""

    def __call__(self) -> dict[str, Any]:
        # Not ``super()``: DotEnvSettingsSource would add every other name of a shared file.
        return _lower_header_names(EnvSettingsSource.__call__(self))

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        text = value.strip()
        if not text.startswith(("{", "[")):
            return value
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return Undecodable(value)

    def explode_env_vars(
        self, field_name: str, field: FieldInfo, env_vars: Mapping[str, str | None]
    ) -> dict[str, Any]:
        nested = super().explode_env_vars(field_name, field, env_vars)
        for path in HEADER_FIELDS:
            if path[0] == field_name:
                nested = _renamed(nested, path[1:], partial(self._header_name, path))
        return nested

    def _header_name(self, path: Sequence[str], name: str) -> str:
        """Give the header that a variable of its own names; names in JSON stay as they are."""
        own = self.env_prefix + "__".join((*path, name))
        # A shell cannot export a name with "-", and no proxy lets "_" through.
        return name.replace("_", "-") if own.lower() in self.env_vars else name


class EnvironmentSource(_LenientDecoding, EnvSettingsSource):
    """The process environment."""


class DotEnvSource(_LenientDecoding, DotEnvSettingsSource):
    """``.env`` files; names without the upstream's prefix are ignored."""


class SecretFilesSource(_LenientDecoding, EnvSettingsSource):
    """Directories with one file a variable, named like the variable, nested ones included.

    pydantic-settings has ``NestedSecretsSettingsSource`` from 2.12 on; this package supports
    2.7, whose own source reads no nested names. Only files with the upstream's prefix are
    read, so other files of a shared directory need not be text.
    """

    def __init__(
        self, settings_cls: type[BaseSettings], directories: Iterable[str | PathLike[str]]
    ) -> None:
        self._directories = [Path(directory).expanduser() for directory in directories]
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        prefix = self.env_prefix.lower()
        found: dict[str, str | None] = {}
        for directory in self._directories:
            if not directory.is_dir():
                warnings.warn(f"secrets directory {directory} does not exist", stacklevel=2)
                continue
            for path in sorted(directory.iterdir()):
                name = path.name.lower()
                if name.startswith(prefix) and path.is_file():
                    found[name] = path.read_text(encoding="utf-8").strip()
        return {name: text for name, text in found.items() if text}


class _SettingsFile(_File):
    def __call__(self) -> dict[str, Any]:
        return _lower_header_names(super().__call__())


class TomlSource(_SettingsFile, TomlConfigSettingsSource):
    """A TOML file."""


class YamlSource(_SettingsFile, YamlConfigSettingsSource):
    """A YAML file."""


class JsonSource(_SettingsFile, JsonConfigSettingsSource):
    """A JSON file."""


FILE_SOURCES: Final[dict[str, type[PydanticBaseSettingsSource]]] = {
    "toml_file": TomlSource,
    "yaml_file": YamlSource,
    "json_file": JsonSource,
}


class CodeSource(InitSettingsSource):
    """Constructor arguments; of a model only the fields that were given.

    pydantic-settings' own source would pass on the defaults of the other fields as well,
    and they would win over the environment.
    """

    def __call__(self) -> dict[str, Any]:
        return _lower_header_names(
            {
                name: value.model_dump(exclude_unset=True)
                if isinstance(value, BaseModel)
                else value
                for name, value in self.init_kwargs.items()
            }
        )


class ClassSource(PydanticBaseSettingsSource):
    """Defaults of the class that have parts, so that a variable changes one part of them.

    pydantic-settings' ``nested_model_default_partial_update`` also takes dataclasses apart,
    which a policy may be, and leaves dicts whole, which headers are.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        default = field.default
        return (
            default.model_dump() if isinstance(default, BaseModel) else default,
            field_name,
            False,
        )

    def __call__(self) -> dict[str, Any]:
        defaults = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return _lower_header_names(
            {name: value for name, value in defaults.items() if isinstance(value, dict)}
        )


def settings_sources(
    settings_cls: type[BaseSettings],
    init_kwargs: dict[str, Any],
    env_file: DotenvType | None = None,
    env_file_encoding: str | None = None,
    secrets_dir: PathType | None = None,
) -> tuple[PydanticBaseSettingsSource, ...]:
    """Give the sources of an upstream, first one wins.

    Args:
        settings_cls: The class; its ``model_config`` names TOML, YAML and JSON files.
        init_kwargs: Constructor arguments.
        env_file: ``.env`` file or files.
        env_file_encoding: Their encoding.
        secrets_dir: Secrets directory or directories.

    Raises:
        SettingsError: A file exists and cannot be read.
    """
    directories = [secrets_dir] if isinstance(secrets_dir, str | PathLike) else secrets_dir or ()
    places: dict[str, object] = {**settings_cls.model_config}
    places.update(env_file=env_file, secrets_dir=secrets_dir)
    readers: dict[str, Callable[[], PydanticBaseSettingsSource]] = {
        "env_file": partial(DotEnvSource, settings_cls, env_file, env_file_encoding),
        "secrets_dir": partial(SecretFilesSource, settings_cls, directories),
    }
    for key, source in FILE_SOURCES.items():
        if settings_cls.model_config.get(key) is not None:
            readers[key] = partial(source, settings_cls)
    return (
        CodeSource(settings_cls, init_kwargs),
        EnvironmentSource(settings_cls),
        *(_read(key, places[key], reader) for key, reader in readers.items()),
        ClassSource(settings_cls),
    )


def _read(
    key: str, place: object, reader: Callable[[], PydanticBaseSettingsSource]
) -> PydanticBaseSettingsSource:
    try:
        return reader()
    # Each format raises its own errors, and those of YAML are plain Exceptions.
    except Exception as error:
        raise SettingsError(f"{key} {place} cannot be read: {error}") from error


def dotenv_variables(settings_cls: type[BaseSettings]) -> dict[str, str]:
    """Give the variables of the class's ``.env`` files, names in lower case."""
    source = DotEnvSource(settings_cls)
    return {name: value for name, value in source.env_vars.items() if value is not None}
