"""Settings of event streams: what they accept, and the texts of their faults."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fastapi_proxy_di import SettingsError, SseEvent, StreamSettings
from fastapi_proxy_di.upstream.composition import compose
from tests.support.gateways import billing


def counts(event: SseEvent) -> bool | None:
    """Count every event."""
    return True


async def waits(event: SseEvent) -> bool | None:
    """Refused: a rule does not wait."""
    return True


class Counts:
    """A rule that is an object."""

    def __call__(self, event: SseEvent) -> bool | None:
        """Count every event."""
        return True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retry": True}, "set streams.first_event"),
        ({"first_event_when": "openai"}, "set streams.first_event"),
        ({"first_event": 1, "first_event_when": "opanai"}, "did you mean 'openai'"),
        ({"first_event": 1, "first_event_when": "mine"}, "use any, openai, anthropic, or package"),
        ({"first_event": 1, "first_event_when": Counts}, "is not a rule"),
        ({"first_event": 1, "first_event_when": 7}, "is not a rule"),
        ({"first_event": 1, "first_event_when": waits}, "without async"),
        ({"first_event": 0}, "more than 0"),
    ],
)
def test_stream_settings_have_clear_faults(given: dict[str, object], message: str) -> None:
    """Each says what to do."""
    with pytest.raises(ValidationError, match=message):
        StreamSettings.model_validate(given)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("any", "any"),
        ("package.module:rule", "package.module:rule"),
        (counts, f"{__name__}:counts"),
        (Counts(), f"{__name__}:Counts"),
    ],
)
def test_rule_is_shown_as_text(rule: object, text: str) -> None:
    """In dumps, such as those of ``check``."""
    settings = StreamSettings.model_validate({"first_event": "10s", "first_event_when": rule})

    assert settings.model_dump(mode="json")["first_event_when"] == text


async def test_rule_that_cannot_be_imported_is_a_fault_at_start() -> None:
    """Not of the first request."""
    streams = {"first_event": 1, "first_event_when": "no_such_module:rule"}
    with pytest.raises((ValueError, SettingsError), match=r"streams\.first_event_when"):
        compose(billing("http://127.0.0.1:1", streams=streams))
