"""Where the raw path is parted at the mount."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.forwarding.target import PathOutsideMount, given_target, target_below


@pytest.mark.parametrize(
    ("path", "raw", "root", "below", "rest", "prefix"),
    [
        ("/billing/a/b", b"/billing/a%2Fb", "", "a/b", b"/a%2Fb", b"/billing"),
        ("/billing", b"/billing", "", "", b"", b"/billing"),
        ("/billing/", b"/billing/", "", "", b"/", b"/billing"),
        ("/bill ing/x", b"/bill%20ing/x", "", "x", b"/x", b"/bill%20ing"),
        ("/root/billing/x", b"/root/billing/x", "/root", "x", b"/x", b"/root/billing"),
        # A server that takes root_path off the path.
        ("/billing/x", b"/billing/x", "/ro ot/", "x", b"/x", b"/ro%20ot/billing"),
        # The root itself.
        ("/root", b"/root", "/root", "", b"", b"/root"),
        # A route whose pattern ends in "$" leaves a last line end out.
        ("/billing/x\n", b"/billing/x%0A", "", "x", b"/x%0A", b"/billing"),
        # No raw path in the scope: quoted anew.
        ("/billing/é;a", None, "", "é;a", b"/%C3%A9;a", b"/billing"),
    ],
)
def test_routed_path_is_parted_by_what_matched(
    path: str, raw: bytes | None, root: str, below: str, rest: bytes, prefix: bytes
) -> None:
    """The raw rest, byte for byte, and the raw mount with ``root_path``."""
    scope = {"path": path, "raw_path": raw, "root_path": root}

    assert target_below(scope, below, routed=True) == (rest, prefix)


@pytest.mark.parametrize(
    ("path", "raw", "root", "rest", "prefix"),
    [
        ("/a%b", b"/a%25b", "", b"/a%25b", b""),
        ("/root/x", b"/root/x", "/root", b"/x", b"/root"),
        ("/rootx", b"/rootx", "/root", b"/rootx", b"/root"),
        ("/x", b"/x", "/root", b"/x", b"/root"),
    ],
)
def test_own_route_is_parted_at_the_root(
    path: str, raw: bytes, root: str, rest: bytes, prefix: bytes
) -> None:
    """All below ``root_path`` counts, whether the server left it in the path or not."""
    scope = {"path": path, "raw_path": raw, "root_path": root}

    assert target_below(scope, "") == (rest, prefix)


def test_scope_without_root_path() -> None:
    """It is optional in ASGI."""
    assert target_below({"path": "/x", "raw_path": b"/x"}, "") == (b"/x", b"")


def test_encoded_slash_at_the_border_is_outside() -> None:
    """``/billing%2Fx`` is another segment."""
    scope = {"path": "/billing/x", "raw_path": b"/billing%2Fx", "root_path": ""}
    with pytest.raises(PathOutsideMount):
        target_below(scope, "x", routed=True)


@pytest.mark.parametrize("path", ["/", "/a%20b?c=d&e", "//x", "/a;b", "/%00", "/a\\b"])
def test_given_target_is_sent_as_it_is(path: str) -> None:
    """Percent-encoded, from a slash on."""
    assert given_target(path) == path.encode()


@pytest.mark.parametrize("path", ["", "a", "?x", "http://x/", "/a b", "/é", "/a#b", "/a\n", "/\0"])
def test_given_target_must_be_one(path: str) -> None:
    """Anything else says what is wrong."""
    with pytest.raises(ValueError, match=r"percent-encoded, .*urllib\.parse\.quote"):
        given_target(path)
