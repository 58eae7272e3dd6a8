"""Descriptions of settings."""

from typing import ClassVar, Literal

import pytest
from pydantic import BaseModel, Field
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di import DestinationSettings, UpstreamSettings
from fastapi_proxy_di.settings import settings_class
from fastapi_proxy_di.settings.fields import fields_at

MODELS = [
    UpstreamSettings,
    DestinationSettings,
    *(model for _, model in fields_at(UpstreamSettings, ()) if model is not None),
]


def descriptions(model: type[BaseModel]) -> dict[str, str | None]:
    """Give the descriptions of a model's fields."""
    return {name: field.description for name, field in model.model_fields.items()}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_setting_is_described(model: type[BaseModel]) -> None:
    """Each field has a description, and the JSON schema has the same."""
    schema = model.model_json_schema()["properties"]

    assert {name: field.get("description") for name, field in schema.items()} == descriptions(model)
    assert all(descriptions(model).values())


def test_every_model_of_a_schema_is_described() -> None:
    """Also the models of transforms, which are a union within a list."""
    models = UpstreamSettings.model_json_schema()["$defs"]
    missing = {
        (model, name)
        for model, schema in models.items()
        for name, field in schema["properties"].items()
        if not field.get("description")
    }

    assert {"PathPrefix", "CookiePath"} < models.keys()
    assert missing == set()


def test_description_of_a_changed_default_stays() -> None:
    """A declared class changes the default, not the description; its own fields get theirs."""

    class Payments(UpstreamSettings, name="payments"):
        model_config = SettingsConfigDict(use_attribute_docstrings=True)

        policy: str = "random"
        """Not this."""

        when_none_available: Literal["panic", "fail"] = "fail"

        team: str = "payments"
        """Who is
        called."""

        floor: int = Field(3, description="Given by hand.")
        """Not this either."""

        room: str = Field("", validation_alias="desk")

        sign: ClassVar[str] = "p"
        """No field."""

    found = Payments.model_json_schema()["properties"]

    for name in ("policy", "when_none_available"):
        assert found[name]["description"] == descriptions(UpstreamSettings)[name]
    assert found["team"]["description"] == "Who is\ncalled."
    assert found["floor"]["description"] == "Given by hand."
    assert "description" not in found["desk"]


def test_class_made_at_run_time_has_the_descriptions_of_its_base() -> None:
    """Such as the class of an upstream that is mentioned by name."""
    assert descriptions(settings_class("billing")) == descriptions(UpstreamSettings)
