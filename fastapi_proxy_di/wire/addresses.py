"""Addresses of destinations: parsed and normalised once, at start."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote

from url_normalize import url_normalize

from fastapi_proxy_di.wire.targets import has_dot_segments

__all__ = ["Address", "parse_address"]

Scheme = Literal["http", "https", "http+unix", "asgi"]

_REMEMBERED: Final = 1024
"""Names whose normal form is cached: a look-up may find a thousand addresses of one name."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_EXAMPLES: Final = (
    "http://10.0.0.1:8080, http+unix://%2Frun%2Fapp.sock or asgi://package.module:app"
)
_URL: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?(#.*)?", re.DOTALL
)
_CONTROL_OR_SPACE: Final = re.compile(r"[\x00-\x20\x7f\\]")
_PARAMETER: Final = re.compile(r"\s\w+=")
_PARAMETERS: Final = (
    'weights and limits of a destination are given as JSON: [{"url": "http://a", "weight": 2}]'
)
_HOST_AND_PORT: Final = re.compile(r"([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?(/.*)?")
_FILE: Final = re.compile(r"/\w[\w./-]*")
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LABELS: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBERS: Final = re.compile(r"\d+(\.\d+)*", re.ASCII)
_APP: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
# Everything RFC 3986 §3.3 allows in a path, and "%", which is left as it is.
_PATH_SAFE: Final = "/%:@!$&'()*+,;=-._~"


class Address(NamedTuple):
    """Address of a destination, parsed.

    Attributes:
        url: Normalised URL; equal for equal addresses. Never holds credentials.
        scheme: Scheme of the URL.
        host: Host to dial: a name or an IP address, IPv6 without brackets.
            ``"localhost"`` for ``http+unix`` and ``asgi``.
        port: TCP port; 80 for ``http+unix`` and ``asgi``.
        authority: Value of the ``Host`` header (RFC 9110 §7.2): the port only when it
            is not the scheme's own, IPv6 in brackets, no zone, no final dot.
        base_path: Raw path in front of each request's path, no slash at its end; ``b""``
            for none.
        socket_path: File system path of an ``http+unix`` address.
        app: ``package.module:app`` of an ``asgi`` address.
        name: Name that TLS certificates are checked against, ``None`` for the host.
    """

    url: str
    scheme: Scheme
    host: str
    port: int
    authority: bytes
    base_path: bytes
    socket_path: str | None = None
    app: str | None = None
    name: str | None = None

    @property
    def server_name(self) -> str:
        """Name that a TLS certificate is checked against: no final dot, no zone."""
        return (self.name or self.host).rstrip(".").partition("%")[0]

    def named(self, authority: str) -> Address:
        """Give the same address with another name in ``Host`` and TLS.

        Args:
            authority: A valid value of ``Host``; the port in it is not that of the address.
        """
        name = parse_address(f"http://{authority}").host
        return self._replace(authority=authority.encode("ascii"), name=name)


def parse_address(text: str) -> Address:
    """Read the address of a destination.

    Args:
        text: ``http://``, ``https://``, ``http+unix://`` or ``asgi://`` URL, with a base
            path or without.

    Returns:
        The normalised address.

    Raises:
        ValueError: The address is not valid; the text says how to write it, and shows no
            credentials.
    """
    text = text.strip()
    shown = shown_address(text)
    if not text:
        raise ValueError(f"is empty; an address looks like {_EXAMPLES}")
    if re.search(r"[\s;|].*://", text):
        raise ValueError(f"{shown!r} holds several addresses; separate addresses by commas")
    match = _URL.fullmatch(text)
    if match is None and re.search(r"[\s;|]", text):
        raise ValueError(
            f"{shown!r} is not one address; separate addresses by commas, each like {_EXAMPLES}"
        )
    if match is None:
        raise ValueError(f"{shown!r} has no scheme; write {_with_scheme(shown)}")
    scheme, authority, path, query, fragment = match.groups()
    scheme = scheme.lower()
    if scheme not in ("http", "https", "http+unix", "asgi"):
        raise ValueError(
            f"{shown!r} has the scheme {scheme!r}; use http, https, http+unix or asgi,"
            f" e.g. {_EXAMPLES}"
        )
    if "@" in authority:
        raise ValueError(
            f"{shown!r} holds credentials; take them out and send them as a header:"
            " request_headers with 'authorization'"
        )
    if query is not None:
        raise ValueError(f"{shown!r} has a query; an address ends with its path")
    if fragment is not None:
        raise ValueError(f"{shown!r} has a fragment; an address ends with its path")
    if _CONTROL_OR_SPACE.search(text):
        mend = _PARAMETERS if _PARAMETER.search(text) else "percent-encode it"
        raise ValueError(f"{shown!r} holds a space, backslash or control character; {mend}")
    base_path = _base_path(path or "", shown)
    if scheme == "http+unix":
        return _unix_address(authority, base_path, shown)
    if scheme == "asgi":
        return _asgi_address(authority, base_path, shown)
    return _tcp_address("https" if scheme == "https" else "http", authority, base_path, shown)


def _tcp_address(
    scheme: Literal["http", "https"], authority: str, base_path: str, shown: str
) -> Address:
    host, port_text = _split_port(authority)
    if not host:
        raise ValueError(f"{shown!r} has no host; write {scheme}://host:port")
    if ":" in host and not host.startswith("["):
        raise ValueError(
            f"{shown!r} has more than one ':' after {scheme}://; write {scheme}://host:port"
            " (IPv6 in brackets: http://[fd00::1]:8080)"
        )
    port = _DEFAULT_PORTS[scheme] if port_text is None else _port(port_text, shown)
    if host.startswith("["):
        dialled, named = _ipv6(host, shown)
    else:
        named = _host_name(host, shown)
        # A final dot keeps the resolver from its search list, so the dialled name keeps it;
        # Host and certificates do not have it.
        dialled = named + "." if host.endswith(".") else named
    suffix = "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
    shown_host = dialled if ":" not in dialled else "[" + dialled.replace("%", "%25") + "]"
    return Address(
        url=f"{scheme}://{shown_host}{suffix}{base_path}",
        scheme=scheme,
        host=dialled,
        port=port,
        authority=(named + suffix).encode("ascii"),
        base_path=base_path.encode("ascii"),
    )


def _split_port(authority: str) -> tuple[str, str | None]:
    host, colon, port = authority.rpartition(":")
    if not colon or (authority.startswith("[") and authority.endswith("]")):
        return authority, None
    return host, port


def _port(text: str, shown: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    # The text itself is not shown: it may be a password that holds a slash.
    raise ValueError(f"{shown!r} has a bad port; it is a number from 1 to 65535")


def _ipv6(bracketed: str, shown: str) -> tuple[str, str]:
    """Give the host to dial and the host for ``Host``, without the zone (RFC 6874 §4)."""
    address, _, zone = bracketed.strip("[]").partition("%25")
    try:
        literal = str(IPv6Address(address))
    except AddressValueError:
        literal = ""
    if not literal or bracketed.count("[") != 1 or not bracketed.endswith("]"):
        raise ValueError(f"{shown!r} has a bad IPv6 address; write it like http://[fd00::1]:8080")
    return (f"{literal}%{unquote(zone)}" if zone else literal), f"[{literal}]"


def _host_name(host: str, shown: str) -> str:
    name = host if _NUMBERS.fullmatch(host) else _idna(host)
    if not _LABELS.fullmatch(name) or ".." in host or host.startswith("."):
        raise ValueError(
            f"{shown!r} has a bad host name; use letters, digits, '-', '_' and '.'"
            " (IPv6 in brackets)"
        )
    if name.rpartition(".")[2].isdigit():
        try:
            IPv4Address(name)
        except AddressValueError:
            raise ValueError(
                f"{shown!r} has a bad IPv4 address; it is four numbers from 0 to 255"
            ) from None
    return name


@lru_cache(maxsize=_REMEMBERED)
def _idna(host: str) -> str:
    """Give a name in lower case and ASCII, ``""`` if that is not possible."""
    # Only the host goes through url_normalize (IDNA, case): on a path it would decode
    # %2e and %7E, fold "//" and resolve dot segments, which changes the address.
    try:
        normalised = url_normalize(f"http://{host}/") or ""
    except ValueError:
        return ""
    return normalised.removeprefix("http://").removesuffix("/")


def _unix_address(authority: str, base_path: str, shown: str) -> Address:
    socket_path = unquote(authority)
    if not socket_path.startswith("/") or "\0" in socket_path or _PERCENT.search(authority):
        raise ValueError(
            f"{shown!r} names no socket; its absolute path stands percent-encoded before the"
            " base path: http+unix://%2Frun%2Fapp.sock/base"
        )
    return Address(
        url=f"http+unix://{quote(socket_path, safe='')}{base_path}",
        scheme="http+unix",
        host="localhost",
        port=80,
        authority=b"localhost",
        base_path=base_path.encode("ascii"),
        socket_path=socket_path,
    )


def _asgi_address(authority: str, base_path: str, shown: str) -> Address:
    if not _APP.fullmatch(authority):
        raise ValueError(f"{shown!r} names no app; write asgi://package.module:app")
    return Address(
        url=f"asgi://{authority}{base_path}",
        scheme="asgi",
        host="localhost",
        port=80,
        authority=b"localhost",
        base_path=base_path.encode("ascii"),
        app=authority,
    )


def _base_path(path: str, shown: str) -> str:
    if _PERCENT.search(path):
        raise ValueError(f"{shown!r} has a '%' that starts no escape; write it as %25")
    # Escapes stay as written: %2F is not "/", and a server may tell %7E from "~".
    raw = quote(path, safe=_PATH_SAFE).rstrip("/")
    if has_dot_segments(raw.encode("ascii")):
        raise ValueError(f"{shown!r} has dot segments; write the path that they lead to")
    return raw


def shown_address(text: str) -> str:
    """Remove what may be secret from the text of an address: credentials, query and fragment."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    # A password may hold any of "/?#" unescaped, so the last "@" decides.
    if "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    return scheme + separator + re.split(r"[?#]", rest, maxsplit=1)[0]


def _with_scheme(shown: str) -> str:
    """Write an address without a scheme as it is probably meant."""
    if _FILE.fullmatch(shown):
        return f"http+unix://{quote(shown, safe='')} for a socket, or http://host:port"
    bare = shown.rpartition("@")[2].lstrip("/")
    if not _HOST_AND_PORT.fullmatch(bare):
        bare = "host:port"
    return f"http://{bare} or https://{bare}"
