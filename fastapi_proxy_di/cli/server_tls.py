"""The certificate and key that ``serve`` serves TLS with, tried before the server starts."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fastapi_proxy_di.errors import SettingsError

__all__ = ["PASSWORD_VARIABLE", "ServerTls", "server_tls"]

PASSWORD_VARIABLE: Final = "UVICORN_SSL_KEYFILE_PASSWORD"  # noqa: S105  # the name of a variable
"""The password of the key, under the name that uvicorn's own command reads. No option takes the
password, because other users of the machine see the arguments of a process."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Files that a server can serve TLS with.

    Attributes:
        certfile: The certificate and the chain to its root, in PEM.
        keyfile: The private key; ``None`` if the certificate's file has it.
        password: The password of the key, ``None`` for none.
    """

    certfile: Path
    keyfile: Path | None
    password: str | None = field(repr=False)


def server_tls(certfile: Path | None, keyfile: Path | None) -> ServerTls | None:
    """Try the files; ``None`` if there is no certificate.

    Raises:
        SettingsError: The files cannot be used.
    """
    if certfile is None:
        return None
    password = os.environ.get(PASSWORD_VARIABLE) or None
    asked: list[str] = []

    def give_password() -> str:
        # Given always, because OpenSSL asks at the terminal otherwise.
        asked.append("for a password")
        return password or ""

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certfile, keyfile, give_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if asked:
            given = "is not the key's" if password else "is not set"
            reason = f"the key has a password, and {PASSWORD_VARIABLE} {given}"
        files = f"--ssl-certfile {certfile}" + (f" --ssl-keyfile {keyfile}" if keyfile else "")
        raise SettingsError(f"{files} cannot be used: {reason}") from None
    return ServerTls(certfile, keyfile, password)
