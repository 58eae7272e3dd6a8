"""Settings of one upstream, and the classes that name them.

Owns the top-level fields, the name and its environment prefix. Where values come from is
``sources``'s, what a fault reads like is ``faults``'s.
"""

import inspect
import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self, cast

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings.descriptions import Described
from fastapi_proxy_di.settings.destinations import Destinations, DestinationSettings
from fastapi_proxy_di.settings.durations import Duration, DurationOrZero
from fastapi_proxy_di.settings.edges import (
    AffinitySettings,
    ForwardedSettings,
    TlsSettings,
    WebSocketSettings,
)
from fastapi_proxy_di.settings.header_fields import (
    RequestHeaderNames,
    RequestHeaderValues,
    ResponseHeaderNames,
    ResponseHeaderValues,
    header_token,
)
from fastapi_proxy_di.settings.health import EjectionSettings, HealthSettings
from fastapi_proxy_di.settings.sources import settings_sources
from fastapi_proxy_di.settings.traffic import LimitSettings, RetrySettings, TimeoutSettings
from fastapi_proxy_di.settings.transforms import Transforms
from fastapi_proxy_di.settings.values import OrNone

__all__ = ["POLICIES", "Mention", "UpstreamSettings", "settings_class"]

POLICIES: Final = (
    "power_of_two_choices",
    "round_robin",
    "least_requests",
    "random",
    "first",
    "latency",
    "peak_ewma",
    "hash",
)
"""The built-in policies."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")
_REFERENCE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_KEYED: Final = ("header", "cookie", "query")


def _policy(value: object) -> object:
    if isinstance(value, str):
        if value in POLICIES or _REFERENCE.fullmatch(value):
            return value
        raise ValueError(
            f"{value!r} is not a policy; use {', '.join(POLICIES)}, or package.module:Policy"
        )
    if isinstance(value, type) or not callable(getattr(value, "pick", None)):
        raise ValueError(  # noqa: TRY004 - pydantic makes a fault of a ValueError only
            "is not a policy; give its name or an object that has 'pick'"
        )
    return value


def _policy_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _hash_key(value: object) -> object:
    if isinstance(value, str):
        kind, colon, name = value.partition(":")
        if kind in ("client", "path") and not colon:
            return value
        if kind in _KEYED and name:
            return f"header:{header_token(name)}" if kind == "header" else value
    raise ValueError(
        "is not a hash key; use client, path, header:<name>, cookie:<name> or query:<name>"
    )


def _explain(value: object) -> object:
    return "off" if value is False else value  # what YAML makes of it


def _version(value: object) -> object:
    return str(value) if isinstance(value, int | float) else value


class UpstreamSettings(Described, BaseSettings):
    """Everything about one upstream; declared by subclassing, or read from variables alone.

    ```python
    class Billing(UpstreamSettings, name="billing"):
        destinations: Destinations = ["http://10.0.0.1:8080"]
    ```

    The first source that has a field wins, field by field in nested models too: constructor
    arguments, environment (``UPSTREAM_BILLING_*``, nested ``__``), ``.env``, secrets
    directories, TOML, YAML and JSON files (as far as ``model_config`` names them), the class.
    An empty variable counts as unset. Frozen.

    ``name``, the keyword of the class statement, is of lower-case letters, digits, ``-`` and
    ``_``; ``-`` is ``_`` in variables.

    Raises:
        pydantic.ValidationError: On construction, with every fault.
        SettingsError: The class has no name, a bad one, or a file cannot be read.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
        defer_build=True,
        arbitrary_types_allowed=True,
        case_sensitive=False,
        env_ignore_empty=True,
        env_nested_delimiter="__",
    )

    name: ClassVar[str] = ""
    """What the upstream is called, e.g. in ``Upstream("billing")``."""

    if TYPE_CHECKING:
        # Required, but any source may give it: a constructor without it is no type error.
        destinations: Destinations = ()
    else:
        destinations: Destinations
        """Where requests go: comma-separated addresses, or JSON with their weights and limits.
        Required."""

    policy: Annotated[
        str | object,
        BeforeValidator(_policy),
        PlainSerializer(_policy_text, return_type=str, when_used="json"),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "enum": list(POLICIES)},
                    {"type": "string", "pattern": r"^[\w.]+:[\w.]+$"},
                ]
            }
        ),
    ] = "power_of_two_choices"
    """How a destination is picked (YARP: power of two choices): a built-in name,
    ``package.module:Policy``, or in code an object."""

    hash_key: Annotated[str, BeforeValidator(_hash_key)] = "client"
    """What the policy ``hash`` keeps together: ``client`` (address), ``path``,
    ``header:<name>``, ``cookie:<name>`` or ``query:<name>``."""

    health: HealthSettings = HealthSettings.model_construct()
    """Active probes."""

    ejection: EjectionSettings = EjectionSettings.model_construct()
    """Removal of destinations that fail live traffic."""

    slow_start: DurationOrZero = 0.0
    """Seconds over which a destination that came back grows to its full share (HAProxy, Envoy);
    0 for at once."""

    when_none_available: Literal["panic", "fail"] = "panic"
    """``panic`` uses unhealthy and ejected destinations again (YARP), never draining or full
    ones; ``fail`` answers 503 with Retry-After."""

    retries: RetrySettings = RetrySettings.model_construct()
    """Further attempts."""

    timeouts: TimeoutSettings = TimeoutSettings.model_construct()
    """How long to wait."""

    limits: LimitSettings = LimitSettings.model_construct()
    """What the upstream may use."""

    max_requests: Annotated[int | None, Field(ge=1), OrNone] = None
    """Requests per ``max_requests_window``, all destinations together; none for no limit."""

    max_requests_window: Annotated[Duration | None, OrNone] = None
    """Seconds after which ``max_requests`` counts anew; none for the health interval."""

    forwarded: ForwardedSettings = ForwardedSettings.model_construct()
    """Forwarding headers: what destinations are told of the client."""

    preserve_host: bool = False
    """Whether the client's Host is passed on instead of the destination's own (YARP: no)."""

    request_headers: RequestHeaderValues = {}
    """Headers that every request upstream gets, in place of the client's. Values are secrets:
    never logged, dumped or shown."""

    remove_request_headers: RequestHeaderNames = ()
    """Headers of the client that are not passed on."""

    response_headers: ResponseHeaderValues = {}
    """Headers that every answer gets, in place of the upstream's. Values are secrets."""

    remove_response_headers: ResponseHeaderNames = ()
    """Headers of the upstream that are not passed on."""

    response_server_headers: Literal["drop", "pass"] = "drop"
    """The upstream's Date and Server: dropped, because uvicorn and hypercorn add their own, or
    passed for servers that are told not to."""

    transforms: Transforms = ()
    """Changes to requests and answers, as JSON: a list of objects with ``kind``, in their
    order. Their values are secrets."""

    tls: TlsSettings = TlsSettings.model_construct()
    """TLS towards destinations."""

    http_version: Annotated[Literal["1.1", "2"], BeforeValidator(_version)] = "1.1"
    """HTTP version towards destinations; 2 needs the extra ``http2``."""

    websocket: WebSocketSettings = WebSocketSettings.model_construct()
    """Limits and pings of WebSockets towards destinations."""

    affinity: Annotated[AffinitySettings | None, OrNone] = None
    """Keeps a client on one destination; none for off."""

    explain: Annotated[Literal["off", "header", "log"], BeforeValidator(_explain)] = "off"
    """Where it is said why a destination was picked: ``header`` (X-Proxy-Explain, which tells
    clients addresses) or ``log`` (``fastapi_proxy_di.explain``)."""

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    f"{name!r} is not a name of an upstream; it is lower-case letters, digits,"
                    " '-' and '_', and starts with a letter"
                )
            cls.name = name
            cls.model_config = SettingsConfigDict(
                **{**cls.model_config, "env_prefix": prefix_of(name)}
            )
        # What a class writes beside a default is for type checkers: validation and JSON
        # schema stay those of the field, also below `policy: str = "random"`.
        own = inspect.get_annotations(cls)
        for field_name in own.keys() & UpstreamSettings.model_fields.keys():
            own[field_name] = UpstreamSettings.model_fields[field_name].rebuild_annotation()
        cls.__annotations__ = own

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Replace the sources by ours of the same order, which report instead of raise."""
        if not cls.name:
            raise SettingsError(
                f"{cls.__name__} has no name; write"
                f' class {cls.__name__}(UpstreamSettings, name="billing"), or use'
                ' load_upstream("billing")'
            )
        # What pydantic-settings always passes; its signature promises less.
        code = cast("InitSettingsSource", init_settings)
        dotenv = cast("DotEnvSettingsSource", dotenv_settings)
        secrets = cast("SecretsSettingsSource", file_secret_settings)
        return settings_sources(
            settings_cls,
            code.init_kwargs,
            dotenv.env_file,
            dotenv.env_file_encoding,
            secrets.secrets_dir,
        )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.affinity is not None and self.retries.hedge_after is not None:
            raise ValueError(
                "retries.hedge_after sends a client elsewhere, affinity keeps it where it is;"
                " leave one of them out"
            )
        if self.health.path is None:
            if self.policy == "latency":
                # Nothing else measures what the policy compares.
                self.__dict__["health"] = self.health.model_copy(update={"path": "/"})
            elif any(d.health_path or d.health_url for d in self.destination_settings):
                raise ValueError(
                    "a destination has health_path or health_url, but probes are off;"
                    " set health.path"
                )
        return self

    @property
    def destination_settings(self) -> tuple[DestinationSettings, ...]:
        """The validated ``destinations``, as type checkers want them."""
        return cast("tuple[DestinationSettings, ...]", self.destinations)

    @property
    def requests_window(self) -> float:
        """Seconds of ``max_requests``: ``max_requests_window``, else the health interval."""
        return self.max_requests_window or self.health.interval


Mention = str | type[UpstreamSettings] | UpstreamSettings
"""What an app says of an upstream: its name, a declared class, or an instance."""


def prefix_of(name: str) -> str:
    """Prefix of the variables of an upstream, e.g. ``UPSTREAM_BILLING_``."""
    return f"UPSTREAM_{name.upper().replace('-', '_')}_"


def env_prefix(settings_cls: type[UpstreamSettings]) -> str:
    """Prefix of the class's variables, e.g. ``UPSTREAM_BILLING_``."""
    return settings_cls.model_config.get("env_prefix", "")


@cache
def settings_class(name: str) -> type[UpstreamSettings]:
    """Give the class of an upstream that is only named; the same one each time.

    Args:
        name: ``[a-z][a-z0-9_-]*``.

    Raises:
        SettingsError: It is not a name.
    """
    title = "".join(part.capitalize() for part in re.split("[-_]", name))
    return create_model(
        f"{title}Settings", __base__=UpstreamSettings, __cls_kwargs__={"name": name}
    )
