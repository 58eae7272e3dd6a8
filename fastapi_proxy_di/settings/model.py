"""The base of every nested model: frozen, no unknown keys, no value in a message."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from fastapi_proxy_di.settings.descriptions import Described

__all__ = ["SettingsModel"]


class SettingsModel(Described, BaseModel):
    """Validated once, never changed.

    Its schema is built when the first one is read, so that importing costs little.

    ``hide_input_in_errors``: the text of an error may end in a log, values may be secrets.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
        defer_build=True,
    )
