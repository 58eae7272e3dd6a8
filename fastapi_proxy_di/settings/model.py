"""The base of every nested model: frozen, no unknown keys, no value in a message."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["SettingsModel"]


class SettingsModel(BaseModel):
    """Validated once, never changed.

    ``hide_input_in_errors``: the text of an error may end in a log, values may be secrets.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )
