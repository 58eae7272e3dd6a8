"""Addresses of sources of destinations: DNS names, files, and what plug-ins read. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote

from fastapi_proxy_di.wire.addresses import Address, parse_address, shown_address

__all__ = ["BUILT_IN", "FILE_SUFFIXES", "SourceAddress", "parse_source", "prefix_of_source"]

BUILT_IN: Final = ("dns", "srv", "file")
"""The first parts of the schemes of the sources that need no plug-in."""
FILE_SUFFIXES: Final = (".toml", ".yaml", ".yml", ".json")

_ADDRESSES: Final = frozenset({"http", "https", "http+unix", "asgi"})
_URL: Final = re.compile(
    r"([a-z][a-z0-9.-]*)(?:\+([a-z][a-z0-9.-]*))?://([^/?#]*)([^?#]*)(?:\?([^#]*))?",
    re.IGNORECASE,
)
_BLANK: Final = re.compile(r"[\x00-\x20\x7f\\]")
_FILE: Final = "write file:///etc/billing.toml, with an absolute path"


class SourceAddress(NamedTuple):
    """Address of a source of destinations, parsed.

    Attributes:
        url: The address as it was written, with its query, which may be secret; ``dns``, ``srv``
            and ``file`` addresses are normalised.
        shown: The address for logs and pages, without its query.
        prefix: What finds the destinations: ``dns``, ``srv``, ``file``, or the name of a plug-in.
        scheme: Scheme of the destinations that are found: what stands behind ``+``, else
            ``"http"``.
        host: The name before the port, in lower case; ``""`` for none.
        port: The port, ``None`` for none.
        path: The path as it was written, from its slash on; decoded for ``file``.
        query: The query without its question mark, ``""`` for none.
    """

    url: str
    shown: str
    prefix: str
    scheme: Literal["http", "https"]
    host: str
    port: int | None
    path: str
    query: str


def prefix_of_source(text: str) -> str | None:
    """Give what finds the destinations of an address; ``None`` for a destination's own address."""
    scheme, separator, _ = text.strip().partition("://")
    scheme = scheme.lower()
    if scheme.partition(":")[0] == "file":
        return "file"
    if not separator or scheme in _ADDRESSES or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        return None
    return scheme.partition("+")[0]


def parse_source(text: str) -> SourceAddress:
    """Read the address of a source.

    Args:
        text: ``dns+http://name:port/base``, ``srv+http://_service._tcp.name/base``,
            ``file:///path.toml``, or what a plug-in reads.

    Raises:
        ValueError: The address is not valid; the text says how to write it, and shows no
            credentials.
    """
    text = text.strip()
    shown = shown_address(text)
    match = _URL.fullmatch(text)
    if match is None or _BLANK.search(text):
        mend = f"; {_FILE}" if prefix_of_source(text) == "file" else ""
        raise ValueError(
            f"{shown!r} is not the address of a source: it has a space, a backslash, a fragment or"
            f" a bad scheme{mend}"
        )
    prefix, scheme = match[1].lower(), (match[2] or "").lower()
    if "@" in match[3]:
        raise ValueError(f"{shown!r} holds credentials; take them out of the address")
    if prefix == "file":
        return _file(match, shown, scheme)
    if scheme not in ("", "http", "https"):
        raise ValueError(
            f"{shown!r} finds destinations with the scheme {scheme!r}; write {prefix}+http or"
            f" {prefix}+https"
        )
    if prefix in ("dns", "srv"):
        return _name(prefix, scheme, text, shown)
    host, port = _host_and_port(match[3], shown)
    return SourceAddress(
        text,
        shown,
        prefix,
        "https" if scheme == "https" else "http",
        host,
        port,
        match[4],
        match[5] or "",
    )


def _file(match: re.Match[str], shown: str, scheme: str) -> SourceAddress:
    path = unquote(match[4])
    if scheme or match[3].lower() not in ("", "localhost") or not path.startswith("/"):
        raise ValueError(f"{shown!r} names no file; {_FILE}")
    if match[5] is not None:
        raise ValueError(f"{shown!r} has a query; the address of a file ends with its path")
    if not path.lower().endswith(FILE_SUFFIXES):
        raise ValueError(f"{shown!r} must end with one of {', '.join(FILE_SUFFIXES)}")
    url = f"file://{match[4]}"
    return SourceAddress(url, url, "file", "http", "", None, path, "")


def _name(prefix: str, scheme: str, text: str, shown: str) -> SourceAddress:
    if not scheme:
        raise ValueError(
            f"{shown!r} does not say how destinations are spoken to; write {prefix}+http or"
            f" {prefix}+https"
        )
    rest = text.partition("+")[2]
    try:
        address = parse_address(rest)
    except ValueError as error:
        raise ValueError(str(error).replace("'http", f"'{prefix}+http", 1)) from None
    if _is_number(address.host):
        raise ValueError(f"{shown!r} has no name to look up; write {scheme}://host:port")
    port = _given_port(rest)
    if prefix == "srv" and port is not None:
        raise ValueError(f"{shown!r} has a port; SRV records give the ports, so leave it out")
    url = f"{prefix}+{address.url}"
    return SourceAddress(
        url,
        url,
        prefix,
        "https" if scheme == "https" else "http",
        address.host,
        address.port,
        address.base_path.decode("ascii"),
        "",
    )


def _host_and_port(authority: str, shown: str) -> tuple[str, int | None]:
    if not authority:
        return "", None
    try:
        address: Address = parse_address(f"http://{authority}")
    except ValueError:
        raise ValueError(f"{shown!r} has a bad host or port") from None
    return address.host, _given_port(f"http://{authority}")


def _given_port(url: str) -> int | None:
    """Give the port that a valid address names, ``None`` if it names none."""
    authority = url.partition("://")[2].partition("/")[0]
    port = authority.rpartition("]")[2].partition(":")[2]
    return int(port) if port else None


def _is_number(host: str) -> bool:
    try:
        _ = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
