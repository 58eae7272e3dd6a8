"""Fields that a declared class adds: which are taken for a mistake, and which stay."""

from types import new_class
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import VERSION, BaseModel, Field
from pydantic.errors import PydanticUserError

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings import (
    AffinitySettings,
    Destinations,
    DestinationSettings,
    EjectionSettings,
    HealthSettings,
    RetrySettings,
    UpstreamSettings,
)


class OwnRetries(RetrySettings):
    """A section of one's own, which the app reads itself."""


class Region(BaseModel):
    """A model of one's own."""

    code: str = "eu"


def declare(annotations: dict[str, Any], **values: object) -> type[UpstreamSettings]:
    """Declare a class with these annotations and values in its body."""
    declared: type[UpstreamSettings] = new_class(
        "Orders",
        (UpstreamSettings,),
        {"name": "orders"},
        lambda body: body.update({"__module__": __name__, "__annotations__": annotations} | values),
    )
    return declared


@pytest.mark.parametrize(
    ("field", "similar"),
    [("polcy", "policy"), ("helth", "health"), ("destination", "destinations")],
)
def test_misspelt_setting_of_a_class_is_refused(field: str, similar: str) -> None:
    """Nothing would read it, and the setting that was meant would keep its default."""
    with pytest.raises(SettingsError) as caught:
        declare({field: str}, **{field: "x"})

    assert str(caught.value) == (
        f"class Orders: {field} is not a setting; did you mean {similar}?"
        " A field of your own needs a name that is less similar"
    )


@pytest.mark.parametrize(
    ("field", "annotation", "default", "meant"),
    [
        ("retry", RetrySettings, RetrySettings(attempts=0), "retries"),
        ("retrys", RetrySettings | None, None, "retries"),
        ("outliers", Annotated[EjectionSettings, "text"] | None, None, "ejection"),
        ("sticky", AffinitySettings, None, "affinity"),
        # As below `from __future__ import annotations`.
        ("healthcheck", "HealthSettings", None, "health"),
        ("healthcheck", "HealthSettings | None", None, "health"),
        ("healthcheck", "Unknown", HealthSettings(path="/up"), "health"),
        ("healthcheck", Any, Field(default=HealthSettings(), description="Ours."), "health"),
    ],
)
def test_section_by_another_name_is_refused(
    field: str, annotation: Any, default: object, meant: str
) -> None:
    """Its type tells the setting that was meant, however different the name is."""
    with pytest.raises(SettingsError) as caught:
        declare({field: annotation}, **{field: default})

    assert str(caught.value) == (
        f"class Orders: {field} is not a setting; did you mean {meant}?"
        " A field of your own needs a type of your own"
    )


def test_section_without_a_default_is_refused() -> None:
    """A variable of that name would set it, and nothing would read it."""
    with pytest.raises(SettingsError, match=r"retry is not a setting; did you mean retries\?"):
        declare({"retry": RetrySettings})


def test_all_misspelt_settings_of_a_class_are_named() -> None:
    """So that one start shows them all, as for every other fault of settings."""
    with pytest.raises(SettingsError) as caught:
        declare({"polcy": str, "retry": RetrySettings, "helth": str})

    assert str(caught.value) == (
        "class Orders: polcy is not a setting; did you mean policy?"
        " retry is not a setting; did you mean retries?"
        " helth is not a setting; did you mean health?"
        " A field of your own needs a name that is less similar and a type of your own"
    )


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (OwnRetries, OwnRetries()),
        (Region | None, Region()),
        ("Region", Region()),
        (dict[str, RetrySettings], {"eu": RetrySettings()}),
        (DestinationSettings, DestinationSettings(url="http://shadow")),
        (ClassVar[RetrySettings], RetrySettings()),
        ("ClassVar[RetrySettings]", RetrySettings()),
    ],
)
def test_types_of_ones_own_and_collections_are_allowed(annotation: Any, default: object) -> None:
    """No setting takes them, so the class's own code reads them; a class variable is no field."""
    declared: Any = declare({"extra": annotation}, extra=default)

    assert declared(destinations=["http://a"]).extra == default


def test_section_in_its_own_field_is_allowed() -> None:
    """In a class, and in one that inherits from it."""

    class House(UpstreamSettings):
        retries: RetrySettings = RetrySettings(attempts=0)
        affinity: AffinitySettings | None = None
        team: str = "payments"

    class Orders(House, name="orders"):
        destinations: Destinations = ["http://orders"]

    assert Orders().retries.attempts == 0


@pytest.mark.parametrize("annotation", [ClassVar[str], "ClassVar[str]"])
def test_class_variable_with_a_similar_name_is_allowed(annotation: Any) -> None:
    """It is no field, so it cannot be meant as a setting; a derived class may set it."""
    declared = declare({"polcy": annotation}, polcy="x")
    derived = new_class("Derived", (declared,), {}, lambda body: body.update({"polcy": "y"}))

    assert (vars(declared)["polcy"], vars(derived)["polcy"]) == ("x", "y")


@pytest.mark.parametrize("value", ["first", Field(default="first"), None])
def test_misspelt_setting_without_an_annotation_is_refused(value: object) -> None:
    """Pydantic's own message tells to annotate it, and names no setting.

    Before 2.14 pydantic raises before the class can look at its attributes.
    """
    pydantic_first = tuple(int(part) for part in VERSION.split(".")[:2]) < (2, 14)
    ours = (
        "^class Orders: polcy is not a setting; did you mean policy[?]"
        " helth is not a setting; did you mean health[?]"
        " A field of your own needs a name that is less similar$"
    )

    with pytest.raises(
        PydanticUserError if pydantic_first else SettingsError,
        match="type annotation" if pydantic_first else ours,
    ):
        declare({"region": str}, polcy=value, helth=value, region="eu")


@pytest.mark.parametrize("name", ["region", "policy"])
def test_other_value_without_an_annotation_is_left_to_pydantic(name: str) -> None:
    """A name that is like no setting, and a setting itself: both ask for an annotation."""
    with pytest.raises(PydanticUserError, match="type annotation"):
        declare({}, **{name: "eu"})


def test_methods_classes_and_private_attributes_may_have_similar_names() -> None:
    """Pydantic takes none of them for a field."""

    class Orders(UpstreamSettings, name="orders"):
        destinations: Destinations = ["http://orders"]
        _policy = "first"

        class Limits(BaseModel):
            size: int = 1

        @property
        def timeout(self) -> float:
            return 2.0

        def limit(self) -> int:
            return self.Limits().size

    assert (Orders().timeout, Orders().limit(), Orders()._policy) == (2.0, 1, "first")
