"""TLS servers with certificates of an authority of their own."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

__all__ = ["TlsServers"]


class TlsServers:
    """Contexts of TLS servers, and the server names that clients sent to them."""

    def __init__(self, folder: Path) -> None:
        self.ca_file = folder / "ca.pem"
        self.sent: list[str | None] = []
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(self.ca_file)

    def of(self, *names: str) -> ssl.SSLContext:
        """Give the context of a server whose certificate has these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names).configure_cert(context)
        context.sni_callback = lambda _, name, __: self.sent.append(name)
        return context
