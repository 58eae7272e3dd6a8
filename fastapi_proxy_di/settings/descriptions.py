"""What fields mean, for JSON schemas: read from the texts below them, when one is asked for.

Pydantic's own ``use_attribute_docstrings`` reads and parses the source of each class while
it is imported: a tenth of the time that fastapi and httpx take.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Container, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

__all__ = ["Described", "field_descriptions"]


class Described:
    """Mixin for models: their JSON schema tells what each field means."""

    if TYPE_CHECKING:
        model_fields: ClassVar[dict[str, FieldInfo]]

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        for field in cls.model_fields.values():
            # Pydantic 2.9 cannot show a default of a class that is not built yet.
            if isinstance(field.default, BaseModel):
                type(field.default).model_rebuild()
        json_schema = handler(schema)
        properties = handler.resolve_ref_schema(json_schema)["properties"]
        for name, text in field_descriptions(cls).items():
            # One that goes by an alias is not among them.
            if name in properties:
                properties[name].setdefault("description", text)
        return json_schema


def field_descriptions(model: type[BaseModel | Described]) -> dict[str, str]:
    """Give the text below each field of a model, by field name.

    A class that changes a default changes no meaning: the text of its base stays. A class
    without source, made at run time, has the texts of its bases.
    """
    found: dict[str, str] = {}
    for cls in model.__mro__:
        if issubclass(cls, BaseModel) and issubclass(cls, Described):
            found.update(_docstrings(_body(cls), cls.model_fields))
    return found


def _body(cls: type) -> list[ast.stmt]:
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return []
    if source[0].isspace():
        source = f"if True:\n{source}"
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    return next(classes).body


def _docstrings(body: list[ast.stmt], names: Container[str]) -> Iterator[tuple[str, str]]:
    for statement, following in zip_longest(body, body[1:]):
        match statement, following:
            case ast.If(), _:
                yield from _docstrings(statement.body, names)
                yield from _docstrings(statement.orelse, names)
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if name in names:
                yield name, inspect.cleandoc(text)
