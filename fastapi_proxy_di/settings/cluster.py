"""Settings of the state that the processes of an app share."""

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from fastapi_proxy_di.settings.durations import Duration
from fastapi_proxy_di.settings.model import SettingsModel
from fastapi_proxy_di.settings.text import OptionalSecret, OrNone

__all__ = ["STORE_SCHEMES", "ClusterSettings"]

STORE_SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
"""One server with and without TLS, one by its socket, and the same behind Sentinel or as a Redis
Cluster."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_CHARACTERS: Final = 16
"""The shortest key; as hexadecimal digits it has 64 bits, too many to guess."""


def _name(value: str | None) -> str | None:
    if value is not None and not _NAME.fullmatch(value):
        raise ValueError("is no name; use up to 64 letters, digits, '.', '_' and '-'")
    return value


def _check_database(scheme: str, path: str) -> None:
    """Find a database that redis-py would ignore."""
    if scheme == "unix":
        return
    database = path.strip("/")
    if scheme.endswith("+sentinel"):
        database = database.partition("/")[2]
    if scheme.endswith("+cluster") and database not in ("", "0"):
        raise ValueError("has a database, but a Redis Cluster has only 0; leave the path out")
    if database and not (database.isascii() and database.isdecimal()):
        raise ValueError(
            "has a database that is no number; give it as the path, e.g. redis://localhost:6379/0"
        )


class ClusterSettings(SettingsModel):
    """State that all processes of an app share, in Redis or Valkey. Without ``store`` none is."""

    store: OptionalSecret = Field(
        default=None,
        validate_default=True,
        description=(
            "Address of the store: ``redis://host:6379/0``, ``rediss://`` with TLS,"
            " ``unix:///path``, ``redis+sentinel://host:26379,host:26379/service`` or"
            " ``redis+cluster://host:6379,host:6379``, with user and password where it has them."
            " Needs the extra ``redis``. None: each process has its own state."
        ),
    )

    name: Annotated[str | None, AfterValidator(_name), OrNone] = Field(
        default=None,
        validate_default=True,
        description=(
            "Name of the app in the store; the same in all processes of the app, another one in"
            " each other app. Required with ``store``."
        ),
    )

    key: OptionalSecret = Field(
        default=None,
        validate_default=True,
        description=(
            "Secret that signs what the processes write into the store, 16 characters or more; the"
            " same in all of them. Required with ``store``."
        ),
    )

    timeout: Duration = Field(
        default=0.05,
        validate_default=True,
        description=(
            "Seconds that a command to the store may take; 250 ms for a store that is reached over"
            " the internet."
        ),
    )

    on_store_lost: Literal["local", "refuse"] = Field(
        default="local",
        description=(
            "What limits do while the store cannot be reached: ``local`` counts in each process,"
            " with its share of the limit; ``refuse`` responds 503."
        ),
    )

    snapshot_interval: Duration = Field(
        default=5.0,
        validate_default=True,
        description=(
            "Seconds between two reports of a process's counts to the store, for the status page"
            " and for metrics of all processes."
        ),
    )

    @field_validator("store")
    @classmethod
    def _is_address(cls, value: SecretStr | None) -> SecretStr | None:
        # The faults do not quote the address, which may have a password in it.
        if value is None:
            return None
        try:
            parts = urlsplit(value.get_secret_value())
        except ValueError:
            raise ValueError("is no address; give one such as redis://localhost:6379/0") from None
        if parts.scheme not in STORE_SCHEMES:
            raise ValueError(
                f"begins with none of {', '.join(f'{one}://' for one in STORE_SCHEMES)}"
            )
        if parts.scheme == "unix":
            if parts.netloc.rpartition("@")[2] or not parts.path.startswith("/"):
                raise ValueError("is no path of a socket; give e.g. unix:///run/redis.sock")
        elif not parts.netloc.rpartition("@")[2]:
            raise ValueError("has no host; give e.g. redis://localhost:6379/0")
        if parts.scheme.endswith("+sentinel") and not parts.path.strip("/"):
            raise ValueError(
                "names no service; give it as the path, e.g. redis+sentinel://host:26379/mymaster"
            )
        _check_database(parts.scheme, parts.path)
        return value

    @field_validator("name", "key")
    @classmethod
    def _required_with_store(
        cls, value: str | SecretStr | None, info: ValidationInfo
    ) -> str | SecretStr | None:
        if value is None and info.data.get("store") is not None:
            mend = (
                "give the app a name, e.g. 'shop'"
                if info.field_name == "name"
                else "set it, e.g. to what `openssl rand -hex 32` prints"
            )
            raise ValueError(f"is required with 'store'; {mend}")
        if isinstance(value, SecretStr) and len(value.get_secret_value()) < _KEY_CHARACTERS:
            raise ValueError(
                f"is shorter than {_KEY_CHARACTERS} characters; give a long random text"
            )
        return value
