"""What fields mean: their own texts, in JSON schemas, and read only when one is asked for."""

import subprocess
import sys
from typing import ClassVar

import pytest
from pydantic import BaseModel, Field

from fastapi_proxy_di import (
    DestinationSettings,
    DestinationStatus,
    HealthSettings,
    UpstreamSettings,
    UpstreamStatus,
)
from fastapi_proxy_di.settings import settings_class
from fastapi_proxy_di.settings.descriptions import field_descriptions


def nested_models(model: type[BaseModel]) -> set[type[BaseModel]]:
    """Give the models that are fields of ``model``."""
    found = set()
    for field in model.model_fields.values():
        for choice in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(choice, type) and issubclass(choice, BaseModel):
                found.add(choice)
    return found


@pytest.mark.parametrize(
    "model", [UpstreamSettings, DestinationSettings, *nested_models(UpstreamSettings)]
)
def test_every_setting_is_described(model: type[BaseModel]) -> None:
    """Nothing in a schema goes without a text, and the text is the one below the field."""
    properties = model.model_json_schema()["properties"]
    shown = {name: field.get("description") for name, field in properties.items()}

    assert shown == field_descriptions(model)
    assert set(shown) == set(model.model_fields)


def test_description_is_the_text_without_its_indentation() -> None:
    """Several lines are one text, as ``inspect.cleandoc`` gives it."""
    assert field_descriptions(HealthSettings)["path"] == (
        "Path that is probed on each destination, joined to its base path; none for no probes.\n"
        "The policy ``latency`` sets ``/``."
    )


def test_description_of_a_changed_default_stays() -> None:
    """A class of one's own changes a value, not what the field means; its own fields count."""

    class Payments(UpstreamSettings, name="payments"):
        policy: str = "random"
        """Not this."""

        team: str = "payments"
        """Who is
        called."""

        floor: int = Field(3, description="Given by hand.")
        """Not this either."""

        room: str = Field("", validation_alias="desk")
        """Found under another name."""

        sign: ClassVar[str] = "p"
        """No field."""

    found = Payments.model_json_schema()["properties"]

    assert found["policy"]["description"] == field_descriptions(UpstreamSettings)["policy"]
    assert found["team"]["description"] == "Who is\ncalled."
    assert found["floor"]["description"] == "Given by hand."
    assert "description" not in found["desk"]
    assert "sign" not in field_descriptions(Payments)


def test_class_without_source_has_the_texts_of_its_base() -> None:
    """One that is only named is made at run time."""
    assert field_descriptions(settings_class("billing")) == field_descriptions(UpstreamSettings)


@pytest.mark.parametrize("name", sorted(UpstreamSettings.model_fields))
def test_default_that_is_not_validated_at_import_is_valid(name: str) -> None:
    """Parts are made without validation, so that importing is quick; it would change nothing."""
    default = UpstreamSettings.model_fields[name].default
    if isinstance(default, BaseModel):
        assert default == type(default)()


def test_importing_builds_no_schema() -> None:
    """Most of what models cost is paid by those who read settings."""
    code = (
        "import fastapi_proxy_di as p, pydantic\n"
        "built = [m for m in vars(p).values() if isinstance(m, type)"
        " and issubclass(m, pydantic.BaseModel) and m.__pydantic_complete__]\n"
        "assert built == [], built"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_status_can_be_built_later() -> None:
    """The models of ``status()`` work as any other, parts first or whole."""
    status = UpstreamStatus.model_validate(
        {
            "upstream": "billing",
            "policy": "first",
            "panic": False,
            "in_flight": 0,
            "queued": 0,
            "tunnels": 0,
            "tunnel_ends": {},
            "destinations": [],
        }
    )

    assert UpstreamStatus.model_validate_json(status.model_dump_json()) == status
    assert DestinationStatus.model_json_schema()["required"]
