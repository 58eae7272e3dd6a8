"""The fields that a declared class adds: what is a mistake for a setting is refused.

Nothing would read such a field, and the setting that was meant would keep its default.
"""

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.similar import similar_name

__all__ = ["refuse_mistaken_fields"]


def refuse_mistaken_fields(
    class_name: str, fields: Mapping[str, FieldInfo], known: Mapping[str, FieldInfo]
) -> None:
    """Refuse a new field that has nearly the name of a setting, or the type of a section.

    A section is a nested model of the settings, such as ``RetrySettings`` of ``retries``. A model
    of the user's own, a class derived from a section, and a collection are no section.

    Args:
        class_name: The declared class.
        fields: All its fields. pydantic has evaluated annotations that are strings, where it can;
            otherwise the type of the default decides.
        known: The settings of every upstream.

    Raises:
        SettingsError: All such fields, each with the setting that was probably meant.
    """
    new = {name: field for name, field in fields.items() if name not in known}
    if not new:
        return
    sections = {
        model: name
        for name, field in known.items()
        for model in _alternatives(field.annotation)
        if issubclass(model, SettingsModel)
    }
    faults: list[str] = []
    needs: dict[str, None] = {}
    for name, field in new.items():
        types = (*_alternatives(field.annotation), type(field.default))
        section = next((sections[model] for model in types if model in sections), None)
        meant = section or similar_name(name, known, 0.8)
        if meant:
            faults.append(f"{name} is not a setting; did you mean {meant}?")
            needs["a type of your own" if section else "a name that is less similar"] = None
    if faults:
        raise SettingsError(
            f"class {class_name}: {' '.join(faults)}"
            f" A field of your own needs {' and '.join(needs)}"
        )


def _alternatives(annotation: Any) -> Iterator[type]:
    """Give the class that an annotation is, or each class of its union."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _alternatives(argument)
    elif isinstance(annotation, type):
        yield annotation
