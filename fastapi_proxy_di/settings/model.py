"""The base of every nested settings model: frozen, strict about keys, silent about values.

Where a field of a nested model accepts more than it gives, its type is a descriptor that only
type checkers see: they take what is accepted from ``__set__``, and what is given from
``__get__``. Such a field says ``validate_default=True``, with which ``Field`` has a typing that
leaves the default to validation; otherwise checkers compare it with the descriptor's class.

Fields of an upstream itself are no descriptors, because a declared class may write them with a
type of its own (``slow_start: float = 30``), and pyright accepts that only of an equal type.
Where they accept more than they give, they are a union with ``Any``, which any type may replace.
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["SettingsModel"]


class SettingsModel(BaseModel):
    """A nested model: validated once at start, never changed.

    Validation errors do not show the input (``hide_input_in_errors``), because values may be
    secrets and errors end in logs. Validators are built by the first validation
    (``defer_build``), because most models are only validated as a part of others.

    Fields are described by ``Field(description=...)``. pydantic could read texts below fields
    instead (``use_attribute_docstrings``), but it finds and parses the source of each class
    during the import: that adds 15 % of the cost of importing fastapi and httpx.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
        defer_build=True,
    )
