"""Settings of one upstream: the top-level fields, and the rules between fields.

The sources of values are in ``sources``, the texts of faults in ``faults``. Long because each
field has its description for users here.
"""

import inspect
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, cast

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings.affinity import AffinitySettings
from fastapi_proxy_di.settings.allowed_destinations import AllowedDestinationsSettings
from fastapi_proxy_di.settings.destination import Destinations, DestinationSettings
from fastapi_proxy_di.settings.discovery import DiscoverySettings
from fastapi_proxy_di.settings.durations import OpenDurationOrZero, OpenOptionalDuration
from fastapi_proxy_di.settings.ejection import EjectionSettings
from fastapi_proxy_di.settings.forwarded import ForwardedSettings
from fastapi_proxy_di.settings.headers import (
    OpenRequestHeaderNames,
    OpenRequestHeaderValues,
    OpenResponseHeaderNames,
    OpenResponseHeaderValues,
)
from fastapi_proxy_di.settings.health import HealthSettings
from fastapi_proxy_di.settings.layered import LayeredSettings
from fastapi_proxy_di.settings.limits import LimitSettings
from fastapi_proxy_di.settings.names import check_name, prefix_of
from fastapi_proxy_di.settings.numbers import AtLeastOne, OptionalLimit
from fastapi_proxy_di.settings.own_fields import refuse_misspelt_values, refuse_mistaken_fields
from fastapi_proxy_di.settings.policy import HashKey, Policy
from fastapi_proxy_di.settings.retries import RetrySettings
from fastapi_proxy_di.settings.streams import StreamSettings
from fastapi_proxy_di.settings.text import OrNone
from fastapi_proxy_di.settings.timeouts import TimeoutSettings
from fastapi_proxy_di.settings.tls import TlsSettings
from fastapi_proxy_di.settings.transforms import Transforms
from fastapi_proxy_di.settings.websocket import WebSocketSettings

__all__ = ["UpstreamSettings"]


def _explain(value: object) -> object:
    return "off" if value is False else value  # what YAML makes of it


def _version(value: object) -> object:
    return str(value) if isinstance(value, int | float) else value


if TYPE_CHECKING:
    OpenHttpVersion: TypeAlias = Literal["1.1", "2"] | Any
    OpenExplain: TypeAlias = Literal["off", "header", "log"] | Any
else:
    OpenHttpVersion = Annotated[Literal["1.1", "2"], BeforeValidator(_version)]
    OpenExplain = Annotated[Literal["off", "header", "log"], BeforeValidator(_explain)]


class UpstreamSettings(LayeredSettings):
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
        SettingsError: The class has no name, a bad one, or a field that is a mistake for a
            setting; or a file cannot be read.
    """

    if TYPE_CHECKING:
        model_config: ClassVar[SettingsConfigDict]  # a class with a name gets its own

    name: ClassVar[str] = ""
    """What the upstream is called, e.g. in ``Upstream("billing")``."""

    # First, because it decides whether ``destinations`` may be empty.
    allowed_destinations: AllowedDestinationsSettings = Field(
        default=AllowedDestinationsSettings(),
        description="Dynamic destinations: addresses that code may give for one request.",
    )

    if TYPE_CHECKING:
        # Required, but from any source: a constructor call without it is correctly typed.
        destinations: Destinations = ()
    else:
        destinations: Destinations = Field(
            default=None,
            description=(
                "Where requests go: comma-separated addresses of destinations and of sources that"
                " find some, or JSON with their weights and limits. Required, unless"
                " ``allowed_destinations`` allows some."
            ),
        )

    discovery: DiscoverySettings = Field(
        default=DiscoverySettings(), description="How sources of destinations are asked."
    )

    policy: Policy = Field(
        default="power_of_two_choices",
        description=(
            "How a destination is picked (YARP: power of two choices): a built-in name,"
            " ``package.module:Policy``, or in code an object."
        ),
    )

    hash_key: HashKey = Field(
        default="client",
        description=(
            "What the policy ``hash`` keeps together: ``client`` (address), ``path``,"
            " ``header:<name>``, ``cookie:<name>`` or ``query:<name>``."
        ),
    )

    prefix_bytes: AtLeastOne = Field(
        default=1024,
        description=(
            "Bytes at the beginning of a prompt by which the policy ``prefix`` keeps requests"
            " together."
        ),
    )

    health: HealthSettings = Field(default=HealthSettings(), description="Active probes.")

    ejection: EjectionSettings = Field(
        default=EjectionSettings(), description="Removal of destinations that fail live traffic."
    )

    slow_start: OpenDurationOrZero = Field(
        default=0.0,
        description=(
            "Seconds over which a destination that became available again grows to its full share"
            " of the traffic (HAProxy, Envoy); 0 for at once."
        ),
    )

    when_none_available: Literal["panic", "fail"] = Field(
        default="panic",
        description=(
            "``panic`` uses unhealthy and ejected destinations again (YARP), never draining or full"
            " ones, nor those in their Retry-After; ``fail`` responds 503 with Retry-After."
        ),
    )

    retries: RetrySettings = Field(default=RetrySettings(), description="Further attempts.")

    timeouts: TimeoutSettings = Field(default=TimeoutSettings(), description="How long to wait.")

    limits: LimitSettings = Field(default=LimitSettings(), description="What the upstream may use.")

    streams: StreamSettings = Field(
        default=StreamSettings(), description="Event streams, such as those of model servers."
    )

    max_requests: OptionalLimit = Field(
        default=None,
        description=(
            "Requests per ``max_requests_window``, all destinations together, and all processes"
            " where the app has a ``cluster.store``; none for no limit."
        ),
    )

    max_requests_window: OpenOptionalDuration = Field(
        default=None,
        description=(
            "Seconds after which ``max_requests`` counts anew; none for the health interval."
        ),
    )

    forwarded: ForwardedSettings = Field(
        default=ForwardedSettings(),
        description="Forwarding headers: what destinations learn about the client.",
    )

    preserve_host: bool = Field(
        default=False,
        description=(
            "Whether the client's Host is passed on instead of the destination's own (YARP: no)."
        ),
    )

    dot_segments: Literal["reject", "pass"] = Field(
        default="reject",
        description=(
            "A client's path with ``.`` or ``..`` segments, plain or encoded: refused with 400, or"
            " passed on unless they lead above the mount."
        ),
    )

    header_case: Literal["lower", "title"] = Field(
        default="lower",
        description=(
            "How header names are written in HTTP/1.1 requests: as HTTP/2 has them, or"
            " ``Content-Length`` for firmware that compares bytes."
        ),
    )

    request_headers: OpenRequestHeaderValues = Field(
        default={},
        description=(
            "Headers that every request upstream gets, in place of the client's, with ``_`` for"
            " ``-`` as well. Values are secrets: never logged, dumped or shown."
        ),
    )

    remove_request_headers: OpenRequestHeaderNames = Field(
        default=(),
        description="Headers of the client that are not passed on, nor with ``_`` for ``-``.",
    )

    response_headers: OpenResponseHeaderValues = Field(
        default={},
        description=(
            "Headers that every response gets, in place of the upstream's. Values are secrets."
        ),
    )

    remove_response_headers: OpenResponseHeaderNames = Field(
        default=(), description="Headers of the upstream that are not passed on."
    )

    response_server_headers: Literal["drop", "pass"] = Field(
        default="drop",
        description=(
            "The upstream's Date and Server: dropped, because uvicorn and hypercorn add their own,"
            " or passed, for servers that are started without these headers."
        ),
    )

    location: Literal["rewrite", "pass"] = Field(
        default="rewrite",
        description=(
            "``Location``, ``Content-Location`` and ``Refresh`` that lead to the upstream:"
            " rewritten to paths below the mount, or passed on as the upstream wrote them."
        ),
    )

    transforms: Transforms = Field(
        default=(),
        description=(
            "Changes to requests and responses, as JSON: a list of objects with ``kind``, in their"
            " order. Their values are secrets."
        ),
    )

    tls: TlsSettings = Field(default=TlsSettings(), description="TLS towards destinations.")

    http_version: OpenHttpVersion = Field(
        default="1.1", description="HTTP version towards destinations; 2 needs the extra ``http2``."
    )

    websocket: WebSocketSettings = Field(
        default=WebSocketSettings(),
        description="Limits and pings of WebSockets towards destinations.",
    )

    affinity: Annotated[AffinitySettings | None, OrNone] = Field(
        default=None, description="Keeps each client on one destination; none for off."
    )

    strict_environment: bool = Field(
        default=False,
        description=(
            "Whether a variable with the upstream's prefix that sets nothing, such as a misspelt"
            " one, is a fault at start instead of a warning."
        ),
    )

    explain: OpenExplain = Field(
        default="off",
        description=(
            "Where the reason for each pick is shown: ``header`` (X-Proxy-Explain, which shows"
            " addresses to clients) or ``log`` (``fastapi_proxy_di.explain``)."
        ),
    )

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = inspect.get_annotations(cls)
        if "name" in own or "name" in vars(cls):
            raise SettingsError(
                f"class {cls.__name__}: the name is not an attribute but an argument of the class"
                f' statement: class {cls.__name__}(UpstreamSettings, name="billing")'
            )
        if name is not None:
            cls.name = check_name(name)
            cls.model_config = SettingsConfigDict(
                **{**cls.model_config, "env_prefix": prefix_of(name)}
            )
        refuse_misspelt_values(cls, own, UpstreamSettings.model_fields)
        # What a class writes beside a default is for type checkers: validation, description
        # and JSON schema stay those of the field, also below `policy: str = "random"`.
        for field_name in own.keys() & UpstreamSettings.model_fields.keys():
            field = UpstreamSettings.model_fields[field_name]
            own[field_name] = Annotated[
                field.rebuild_annotation(), Field(description=field.description)
            ]
        cls.__annotations__ = own

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        # `__init_subclass__` has only annotations, which may be strings.
        super().__pydantic_init_subclass__(**kwargs)
        refuse_mistaken_fields(cls, cls.model_fields, UpstreamSettings.model_fields)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Give the sources of `LayeredSettings`, for a class that has a name."""
        if not cls.name:
            declared = "Billing" if cls is UpstreamSettings else cls.__name__
            raise SettingsError(
                f"{cls.__name__} has no name, which is given in the class statement: write"
                f' class {declared}(UpstreamSettings, name="billing"), or read the settings of'
                ' the environment with load_upstream("billing")'
            )
        return super().settings_customise_sources(
            settings_cls, init_settings, env_settings, dotenv_settings, file_secret_settings
        )

    @field_validator("destinations", mode="wrap")
    @classmethod
    def _none_only_where_some_are_allowed(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        if value is None or value in ("", (), []):
            # Without it the field has a fault of its own.
            allowed = info.data.get("allowed_destinations")
            if allowed is None or allowed.some:
                return ()
        if value is None:
            raise PydanticKnownError("missing")
        return handler(value)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.affinity is not None and self.retries.hedge_after is not None:
            raise ValueError(
                "retries.hedge_after sends a request to a second destination, affinity keeps a"
                " client on one; leave one of them out"
            )
        if self.health.path is None:
            if self.policy == "latency":
                # The policy compares latencies of probes.
                self.__dict__["health"] = self.health.model_copy(update={"path": "/"})
            elif any(d.health_path or d.health_url for d in self.given_destinations):
                raise ValueError(
                    "a destination has health_path or health_url, but probes are off;"
                    " set health.path"
                )
        return self

    def named(self, name: str) -> Self:
        """Give the same settings for an upstream with another name.

        One class may so be the settings of many upstreams, such as one for each tenant of a
        database; its variables, e.g. ``UPSTREAM_TENANT_*``, hold for all of them.

        Args:
            name: ``[a-z][a-z0-9_-]*``.

        Raises:
            SettingsError: ``name`` is not a name of an upstream.
        """
        copied = self.model_copy()
        copied.__dict__["name"] = check_name(name)  # frozen
        return copied

    @property
    def given_destinations(self) -> tuple[DestinationSettings, ...]:
        """The validated ``destinations``: those with an address, and the sources of others."""
        return cast("tuple[DestinationSettings, ...]", self.destinations)

    @property
    def destination_settings(self) -> tuple[DestinationSettings, ...]:
        """The validated ``destinations`` that have an address, without sources of others."""
        return tuple([one for one in self.given_destinations if one.source is None])

    @property
    def requests_window(self) -> float:
        """Seconds of ``max_requests``: ``max_requests_window``, else the health interval."""
        return self.max_requests_window or self.health.interval
