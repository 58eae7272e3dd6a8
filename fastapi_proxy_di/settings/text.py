"""Values that may also be written as text in a variable: comma-separated lists, ``none``."""

import re
from typing import TYPE_CHECKING, Final

from pydantic import BeforeValidator, GetJsonSchemaHandler, SecretStr
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

__all__ = ["BROKEN_JSON", "AlsoText", "OptionalSecret", "OrNone", "split_commas"]


BROKEN_JSON: Final = (
    "starts like JSON and cannot be decoded; check its brackets and quotes (JSON has double quotes)"
)
_JSON: Final = re.compile(r"\s*(\{|\[\s*[\"'{\[])")
"""How JSON begins, other than an IPv6 address in brackets."""


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
    """Turn comma-separated text into a list; anything else is left for its type to judge.

    Raises:
        ValueError: The text is JSON that was not decoded, because it is not valid.
    """
    if isinstance(value, str):
        if _JSON.match(value):
            raise ValueError(BROKEN_JSON)
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
