"""Makes the TLS context for connections to destinations, and tells when its files have changed."""

from __future__ import annotations

import ssl
from hashlib import sha256
from pathlib import Path

from fastapi_proxy_di.settings import TlsSettings


def tls_state(settings: TlsSettings) -> tuple[TlsSettings, tuple[bytes | None, ...]]:
    """Give what a context is made of: the settings, and a digest of each file as it is now."""
    files = (settings.ca_file, settings.client_cert, settings.client_key)
    return settings, tuple([_digest(file) for file in files if file is not None])


def _digest(file: Path) -> bytes | None:
    try:
        return sha256(file.read_bytes()).digest()
    except OSError:  # the context that is made of it will report it
        return None


def client_context(settings: TlsSettings, *, alpn: list[str]) -> ssl.SSLContext:
    """Make the context for connections to ``https://`` destinations.

    Args:
        settings: The settings: roots, client certificate, verification.
        alpn: Protocols to offer, best first.

    Raises:
        ValueError: A file cannot be used; the text names the setting.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"tls.ca_file: {settings.ca_file} has no usable roots: {error}") from error
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.client_cert is not None:
        try:
            # An empty password: without one OpenSSL asks for it on the terminal and waits.
            context.load_cert_chain(settings.client_cert, settings.client_key, password="")
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"tls.client_cert: {settings.client_cert} and its key cannot be used: {error}"
            ) from error
    context.set_alpn_protocols(alpn)
    return context
