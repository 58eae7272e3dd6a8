"""Where the raw path is parted at the mount."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.forwarding.target import (
    PathOutsideMount,
    given_target,
    target_below,
    target_in_mount,
)


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


@pytest.mark.parametrize(
    ("path", "raw", "root", "app_root", "rest", "prefix"),
    [
        # Nothing is mounted.
        ("/x", b"/x", "", None, b"/x", b""),
        ("/a/b", b"/a%2Fb", "", None, b"/a%2Fb", b""),
        ("/\ufffd", b"/%FF", "", None, b"/%FF", b""),
        ("/é", None, "", None, b"/%C3%A9", b""),
        # Starlette: the whole path stays, and root_path ends with the mount.
        ("/m/x", b"/m/x", "/m", "", b"/x", b"/m"),
        ("/m/", b"/m/", "/m", "", b"/", b"/m"),
        ("/m m/a/b", b"/m%20m/a%2Fb", "/m m", "", b"/a%2Fb", b"/m%20m"),
        ("/api/m/x", b"/api/m/x", "/api/m", "/api", b"/x", b"/api/m"),
        # A proxy in front has taken /api off, so it is in root_path alone.
        ("/m/x", b"/m/x", "/api/m", "/api", b"/x", b"/api/m"),
        ("/x", b"/x", "/api", None, b"/x", b"/api"),
        ("/mx", b"/mx", "/m", None, b"/mx", b"/m"),
        # Frameworks that take the mount out of the path, whether they name it or not.
        ("/x", b"/m/x", "/m", None, b"/x", b"/m"),
        ("/x", b"/m/x", "/api/m", None, b"/x", b"/api/m"),
        ("/x", b"/m/x", "", None, b"/x", b"/m"),
        ("/m/x", b"/m/m/x", "", None, b"/m/x", b"/m"),
        # Litestar, with a slash at the end of each path.
        ("/a/b/", b"/m/a%2Fb", "", None, b"/a%2Fb", b"/m"),
        ("/", b"/m", "", None, b"", b"/m"),
        ("/", b"/m/", "", None, b"/", b"/m"),
    ],
)
def test_mounted_application_is_parted_at_its_mount(
    path: str, raw: bytes | None, root: str, app_root: str | None, rest: bytes, prefix: bytes
) -> None:
    """The raw path below it, in whatever way the framework tells where it stands."""
    scope: dict[str, object] = {"path": path, "raw_path": raw, "root_path": root}
    if app_root is not None:
        scope["app_root_path"] = app_root

    assert target_in_mount(scope) == (rest, prefix)


@pytest.mark.parametrize(
    ("path", "raw", "root"),
    [
        ("/m/x", b"/m%2Fx", "/m"),  # an encoded slash at the border
        ("/a/b", b"/m/a//b", ""),  # the framework has merged slashes
        ("/new", b"/old/path", ""),  # something has rewritten the path alone
    ],
)
def test_mount_that_cannot_be_told_is_outside(path: str, raw: bytes, root: str) -> None:
    """Nothing is guessed: 404."""
    with pytest.raises(PathOutsideMount):
        target_in_mount({"path": path, "raw_path": raw, "root_path": root})


@pytest.mark.parametrize("path", ["/", "/a%20b?c=d&e", "//x", "/a;b", "/%00", "/a\\b"])
def test_given_target_is_sent_as_it_is(path: str) -> None:
    """Percent-encoded, from a slash on."""
    assert given_target(path) == path.encode()


@pytest.mark.parametrize("path", ["", "a", "?x", "http://x/", "/a b", "/é", "/a#b", "/a\n", "/\0"])
def test_given_target_must_be_one(path: str) -> None:
    """Anything else says what is wrong."""
    with pytest.raises(ValueError, match=r"percent-encoded, .*urllib\.parse\.quote"):
        given_target(path)
