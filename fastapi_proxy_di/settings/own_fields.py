"""What a declared class adds: a mistake for a setting is refused.

Nothing would read it, and the setting that was meant would keep its default.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.similar import similar_name

__all__ = ["refuse_misspelt_values", "refuse_mistaken_fields"]

_CUTOFF: Final = 0.8
_NAME: Final = "a name that is less similar"
_TYPE: Final = "a type of your own"


def refuse_mistaken_fields(
    cls: type, fields: Mapping[str, FieldInfo], known: Mapping[str, FieldInfo]
) -> None:
    """Refuse a new field that has nearly the name of a setting, or the type of a section.

    A section is a nested model of the settings, such as ``RetrySettings`` of ``retries``. A model
    of the user's own, a class derived from a section, and a collection are no section.

    Args:
        cls: The declared class.
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
    meant: dict[str, str] = {}
    needs: dict[str, None] = {}
    for name, field in new.items():
        models = (*_alternatives(field.annotation), type(field.default))
        section = next((sections[model] for model in models if model in sections), None)
        if setting := section or similar_name(name, known, _CUTOFF):
            meant[name] = setting
            needs[_TYPE if section else _NAME] = None
    _refuse(cls, meant, needs)


def refuse_misspelt_values(
    cls: type[BaseModel], annotations: Iterable[str], known: Mapping[str, FieldInfo]
) -> None:
    """Refuse a value without an annotation whose name is nearly that of a setting.

    pydantic refuses each value without an annotation, but names no setting. It does so after
    ``__init_subclass__`` from 2.14 on, and before it in earlier versions.

    Args:
        cls: The declared class, in its ``__init_subclass__``.
        annotations: The names that it annotates.
        known: The settings of every upstream.

    Raises:
        SettingsError: All such values, each with the setting that was probably meant.
    """
    allowed = {*annotations, *cls.__class_vars__, *known}
    meant = {
        name: setting
        for name, value in vars(cls).items()
        if not name.startswith("_") and name not in allowed
        # Methods, properties and nested classes may have any name.
        if not isinstance(value, type) and not hasattr(type(value), "__get__")
        if (setting := similar_name(name, known, _CUTOFF))
    }
    _refuse(cls, meant, [_NAME])


def _refuse(cls: type, meant: Mapping[str, str], needs: Iterable[str]) -> None:
    if meant:
        faults = " ".join(
            f"{name} is not a setting; did you mean {setting}?" for name, setting in meant.items()
        )
        raise SettingsError(
            f"class {cls.__name__}: {faults} A field of your own needs {' and '.join(needs)}"
        )


def _alternatives(annotation: Any) -> Iterator[type]:
    """Give the class that an annotation is, or each class of its union."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _alternatives(argument)
    elif isinstance(annotation, type):
        yield annotation
