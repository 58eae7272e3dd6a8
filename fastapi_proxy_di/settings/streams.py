"""Settings of event streams."""

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final, Self, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from fastapi_proxy_di.settings.durations import OptionalDuration
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.numbers import Count
from fastapi_proxy_di.settings.similar import similar_name
from fastapi_proxy_di.wire.event_stream import SseEvent

__all__ = ["FIRST_EVENTS", "FirstEventWhen", "StreamSettings"]

FIRST_EVENTS: Final = ("any", "openai", "anthropic")
"""The built-in rules for which event is the first that counts."""

_REFERENCE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_OWN: Final = "package.module:function"


def _when(value: object) -> object:
    if isinstance(value, str):
        if value in FIRST_EVENTS or _REFERENCE.fullmatch(value):
            return value
        similar = similar_name(value.strip().lower(), FIRST_EVENTS)
        hint = f"did you mean {similar!r}? Use" if similar else "use"
        raise ValueError(f"{value!r} is unknown; {hint} {', '.join(FIRST_EVENTS)}, or {_OWN}")
    if not callable(value) or isinstance(value, type):
        raise ValueError(  # noqa: TRY004 - pydantic makes a fault of a ValueError only
            f"is not a rule for the first event; give its name, {_OWN} or a function of the event"
        )
    if inspect.iscoroutinefunction(value):
        raise ValueError("is a coroutine function; give a function without async")
    return value


def _when_text(value: object) -> str:
    if isinstance(value, str):
        return value
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


if TYPE_CHECKING:
    FirstEventWhen: TypeAlias = str | Callable[[SseEvent], bool | None]
else:
    FirstEventWhen = Annotated[
        str | object,
        BeforeValidator(_when),
        PlainSerializer(_when_text, return_type=str, when_used="json"),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "enum": list(FIRST_EVENTS)},
                    {"type": "string", "pattern": r"^[\w.]+:[\w.]+$"},
                ]
            }
        ),
    ]
    """A built-in name, ``package.module:function``, or a function of an event."""


class StreamSettings(SettingsModel):
    """How event streams (``text/event-stream``) are forwarded; all is off by default."""

    first_event: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "Seconds from the head of a stream to its first event that counts. The response is held"
            " until then, and a stream that fails before is tried at another destination if the"
            " request may be sent twice; none for not holding responses."
        ),
    )

    first_event_when: FirstEventWhen = Field(
        default="any",
        description=(
            "Which event counts as the first: ``any`` with data that is no ping, ``openai`` and"
            " ``anthropic`` with content, ``package.module:function``, or in code a function."
        ),
    )

    retry: bool = Field(
        default=False,
        description=(
            "Whether a ``POST`` may be sent again as well if its stream fails before the first"
            " event; the abandoned destination may go on working, and bill for it."
        ),
    )

    replay_bytes: Count = Field(
        default=1 << 20,
        description=(
            "Largest request body that is kept until the first event, to send it again; also the"
            " largest JSON body that is read before a destination is picked, where the policy"
            " ``prefix`` or an ``ejection.key`` in the body needs it."
        ),
    )

    idle: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "Longest silence between events with data, in seconds; a stream with a longer one is"
            " broken off. Comments and heartbeats are no events; none for no limit."
        ),
    )

    heartbeat: OptionalDuration = Field(
        default=None,
        validate_default=True,
        description=(
            "Seconds of silence between two events after which the client gets a comment, ``:"
            " ping``, so that nothing on the way ends an idle connection; none for never."
        ),
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.first_event is None:
            if self.retry:
                raise ValueError(
                    "streams.retry repeats requests whose streams fail before the first event;"
                    " set streams.first_event, the time that it may take"
                )
            if self.first_event_when != "any":
                raise ValueError(
                    "streams.first_event_when says which event is the first; set"
                    " streams.first_event, the time that it may take"
                )
        return self
