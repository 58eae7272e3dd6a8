"""Values that may also be written as text in a variable: comma-separated lists, ``none``."""

from typing import TYPE_CHECKING, Final

from pydantic import BeforeValidator, GetJsonSchemaHandler, SecretStr
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

__all__ = ["AlsoText", "OptionalSecret", "OrNone", "split_commas"]


class AlsoText:
    """Adds "or a text" to the JSON schema of a type that has another form.

    Args:
        description: What the text holds.
    """

    def __init__(self, description: str) -> None:
        self._text = {"type": "string", "description": description}

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), self._text]}


def split_commas(value: object) -> object:
    """Turn comma-separated text into a list; anything else is left for its type to judge."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _none(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() in ("none", "null", "off"):
        return None
    return value


OrNone: Final = BeforeValidator(_none)
"""Reads ``none`` (or ``off``) in a variable as ``None``, so that it can override a class."""


if TYPE_CHECKING:

    class OptionalSecret:
        """A field that accepts plain text too, and gives a ``SecretStr`` or ``None``."""

        def __get__(self, instance: object, owner: type | None = None) -> SecretStr | None: ...

        def __set__(self, instance: object, value: str | SecretStr | None) -> None: ...

else:
    OptionalSecret = SecretStr | None
