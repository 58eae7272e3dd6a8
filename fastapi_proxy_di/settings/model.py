"""The base of every nested settings model: frozen, strict about keys, silent about values."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["SettingsModel"]


class SettingsModel(BaseModel):
    """A nested model: validated once at start, never changed.

    The text below each field is its description in JSON schemas. Validation errors do not
    show the input (``hide_input_in_errors``), because values may be secrets and errors end
    in logs.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )
