"""The base of settings that are read from several sources, field by field."""

from typing import ClassVar, cast

from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from fastapi_proxy_di.settings.sources import settings_sources

__all__ = ["LayeredSettings"]


class LayeredSettings(BaseSettings):
    """Settings whose first source that has a field wins, in nested models too.

    The sources are constructor arguments, environment, ``.env``, secrets directories, TOML, YAML
    and JSON files (as far as ``model_config`` names them), and the class. An empty variable
    counts as unset. Frozen.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
        defer_build=True,
        arbitrary_types_allowed=True,
        case_sensitive=False,
        env_ignore_empty=True,
        env_nested_delimiter="__",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Replace the sources by `settings_sources`: the same order, but faults do not raise."""
        # What pydantic-settings always passes; its signature promises less.
        code = cast("InitSettingsSource", init_settings)
        dotenv = cast("DotEnvSettingsSource", dotenv_settings)
        secrets = cast("SecretsSettingsSource", file_secret_settings)
        return settings_sources(
            settings_cls,
            code.init_kwargs,
            dotenv.env_file,
            dotenv.env_file_encoding,
            secrets.secrets_dir,
        )
