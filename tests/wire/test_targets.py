"""Request targets: the raw path split at the mount, joined to a base path, and refused."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fastapi_proxy_di.wire.targets import (
    PathOutsideMount,
    climbs,
    given_target,
    has_dot_segments,
    join_target,
    raw_path_below,
    target_below,
    target_below_mount,
    target_in_mount,
)

SEGMENT = st.text(st.sampled_from("aZ09-._~%!$&'()*+,;=:@é/ "), min_size=1, max_size=6)
RAW_PATH = st.lists(
    st.sampled_from(["a", ".", "..", "%2e", "%2E.", "", "%2f", "%5C", "\\", "..;x", "%20", "b"]),
    max_size=8,
).map(lambda parts: ("/" + "/".join(parts)).encode())


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
def test_routed_path_is_split_by_the_matched_path(
    path: str, raw: bytes | None, root: str, below: str, rest: bytes, prefix: bytes
) -> None:
    """Gives the raw rest, byte for byte, and the raw mount with ``root_path``."""
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
def test_path_of_another_route_is_split_at_root_path(
    path: str, raw: bytes, root: str, rest: bytes, prefix: bytes
) -> None:
    """Whether the server removed ``root_path`` from the path or not."""
    scope = {"path": path, "raw_path": raw, "root_path": root}

    assert target_below(scope, "") == (rest, prefix)


def test_scope_without_root_path() -> None:
    """``root_path`` is optional in ASGI."""
    assert target_below({"path": "/x", "raw_path": b"/x"}, "") == (b"/x", b"")


def test_encoded_slash_after_the_mount_is_outside() -> None:
    """``/billing%2Fx`` is one segment."""
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
def test_path_of_a_mounted_application_is_split_at_its_mount(
    path: str, raw: bytes | None, root: str, app_root: str | None, rest: bytes, prefix: bytes
) -> None:
    """However the framework gives the mount."""
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
def test_mount_that_cannot_be_found_in_the_path_is_outside(
    path: str, raw: bytes, root: str
) -> None:
    """The mount is not guessed; the client gets a 404."""
    with pytest.raises(PathOutsideMount):
        target_in_mount({"path": path, "raw_path": raw, "root_path": root})


@pytest.mark.parametrize("path", ["/", "/a%20b?c=d&e", "//x", "/a;b", "/%00", "/a\\b"])
def test_given_target_is_sent_as_it_is(path: str) -> None:
    """A percent-encoded path that starts with a slash."""
    assert given_target(path) == path.encode()


@pytest.mark.parametrize("path", ["", "a", "?x", "http://x/", "/a b", "/é", "/a#b", "/a\n", "/\0"])
def test_given_target_refuses_a_malformed_path(path: str) -> None:
    """The message says how to write it."""
    with pytest.raises(ValueError, match=r"percent-encoded, .*urllib\.parse\.quote"):
        given_target(path)


@pytest.mark.parametrize(
    ("base_path", "path", "query", "target"),
    [
        (b"", b"/x", b"", b"/x"),
        (b"", b"", b"", b"/"),
        (b"", b"", b"a=1", b"/?a=1"),
        (b"/base", b"", b"", b"/base"),
        (b"/base", b"/", b"", b"/base/"),
        (b"/base", b"//x/%2F;p", b"a=%20&&", b"/base//x/%2F;p?a=%20&&"),
        (b"/base", b"/a/../b", b"", b"/base/a/../b"),
    ],
)
def test_join_target_joins_bytes(
    base_path: bytes, path: bytes, query: bytes, target: bytes
) -> None:
    """Nothing is decoded, merged or resolved."""
    assert target == join_target(base_path, path, query)


@pytest.mark.parametrize(
    ("raw_path", "mount", "below"),
    [
        (b"/billing/x", "/billing", b"/x"),
        (b"/billing", "/billing", b""),
        (b"/billing/", "/billing", b"/"),
        (b"/billing//x", "/billing", b"//x"),
        (b"/billing/%2Fx;a", "/billing", b"/%2Fx;a"),
        (b"/bill%69ng/x", "/billing", b"/x"),
        (b"/bill%69ng", "/billing", b""),
        (b"/billing%2Fx", "/billing", None),
        (b"/billing%2fx/y", "/billing", None),
        (b"/billings/x", "/billing", None),
        (b"/bill", "/billing", None),
        (b"/", "/a/b", None),
        (b"/a/b/c", "/a/b", b"/c"),
        (b"/a%2Fb/c", "/a/b", None),
        (b"/x", "", b"/x"),
        (b"", "", b""),
        (b"*", "", None),
        (b"/b%C3%BCcher/x", "/bücher", b"/x"),
        ("/bücher/x".encode(), "/bücher", b"/x"),
        (b"/a%25b/x", "/a%b", b"/x"),
        (b"/a%2525b/x", "/a%25b", b"/x"),
        (b"/a%25b/x", "/a%25b", None),
    ],
)
def test_raw_path_below_finds_whole_segments(
    raw_path: bytes, mount: str, below: bytes | None
) -> None:
    """Each raw segment decodes to its segment of the mount, or the path is not below it."""
    assert below == raw_path_below(raw_path, mount)


@given(st.lists(SEGMENT.filter(lambda s: "/" not in s), max_size=3), RAW_PATH, st.data())
def test_raw_path_below_returns_the_rest_byte_for_byte(
    segments: list[str], rest: bytes, data: st.DataObject
) -> None:
    """The rest is unchanged, however the client encoded the mount."""
    mount = "".join("/" + segment for segment in segments)
    raw = b""
    for segment in segments:
        safe = data.draw(st.sampled_from(["", "!$&'()*+,;=:@"]))
        raw += b"/" + quote(segment, safe=safe).encode()

    assert rest == raw_path_below(raw + rest, mount)


@pytest.mark.parametrize(
    "path",
    [
        b"/..",
        b"/../x",
        b"/a/../..",
        b"/%2e%2e/x",
        b"/.%2E/x",
        b"/a/%2e./%2E%2e",
        b"/..%2fx",
        b"/x%2f..%2f..%2f..",
        b"/..\\x",
        b"/%5c..",
        b"/a//../..",
        b"/./../a/b",
        b"/..;x/y",
        b"/a%2fb/../..",
        b"..",
    ],
)
def test_climbs_finds_dot_segments_in_every_form(path: bytes) -> None:
    """Plain or encoded, with any separator that some server reads as a slash."""
    assert climbs(path)


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"/a/b",
        b"/a/..",
        b"/a/../b",
        b"/a/%2e%2e/b",
        b"/a/b/../..",
        b"/...",
        b"/..a",
        b"/a..b/c",
        b"/%252e%252e/x",
        b"/./.",
        b"/a%20b/%2f",
        b"/v1..v2",
    ],
)
def test_climbs_allows_paths_that_stay_below(path: bytes) -> None:
    """Dot segments alone are allowed; only one level of encoding counts."""
    assert not climbs(path)


@given(RAW_PATH)
@example(b"/a/../..")
def test_climbs_is_never_more_lenient_than_a_resolver(path: bytes) -> None:
    """Whatever a server that decodes once and resolves puts above the start, climbs."""
    decoded = unquote(path.decode()).replace("\\", "/")
    depth = lowest = 0
    for segment in decoded.split("/"):
        if segment == "..":
            depth -= 1
        elif segment not in ("", "."):
            depth += 1
        lowest = min(lowest, depth)

    assert climbs(path) or lowest >= 0


@pytest.mark.parametrize(
    "path",
    [
        b".",
        b"..",
        b"/.",
        b"/./x",
        b"/x/..",
        b"/x/../y",
        b"/x/%2e/y",
        b"/x/.%2E/y",
        b"/x%2f..%2Fy",
        b"/x/..%5Cy",
        b"/x\\..\\y",
        b"/x/..;a=b/y",
        b"/x/.;",
    ],
)
def test_dot_segments_are_found_in_every_form(path: bytes) -> None:
    """Plain or encoded, with any separator or with path parameters."""
    assert has_dot_segments(path)


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"/a/b",
        b"/...",
        b"/.a",
        b"/a.",
        b"/..a/b..",
        b"/v1..v2/a.b",
        b"/%2ea",
        b"/%252e/x",
        b"/a%20b/%2f",
        b"/.\n",
        b"/;./x",
    ],
)
def test_dots_within_a_segment_are_no_dot_segments(path: bytes) -> None:
    """Only a segment of one or two dots; only one level of encoding counts."""
    assert not has_dot_segments(path)


@given(RAW_PATH)
@example(b"/..\\x;y")
def test_a_path_that_climbs_has_dot_segments(path: bytes) -> None:
    """So a path without dot segments needs no further check."""
    assert has_dot_segments(path) or not climbs(path)


@given(st.binary(max_size=30))
def test_climbs_needs_a_double_dot(path: bytes) -> None:
    """Without two dots in a row, plain or encoded, no path climbs."""
    assume(b".." not in path.lower().replace(b"%2e", b"."))

    assert not climbs(path)


@pytest.mark.parametrize(
    ("path", "raw", "root", "rest", "prefix"),
    [
        ("/acme/a/b", b"/acme/a%2Fb", "", b"/a%2Fb", b"/acme"),
        ("/acme", b"/acme", "", b"", b"/acme"),
        ("/acme//x/", b"/acme//x/", "", b"//x/", b"/acme"),
        ("/acme/x\n", b"/acme/x%0A", "", b"/x%0A", b"/acme"),
        ("/root/acme/x", b"/root/acme/x", "/root", b"/x", b"/root/acme"),
        # A server that takes root_path off the path.
        ("/acme/x", b"/acme/x", "/root", b"/x", b"/root/acme"),
    ],
)
def test_target_below_a_given_mount(
    path: str, raw: bytes, root: str, rest: bytes, prefix: bytes
) -> None:
    """The mount comes after the server's root path."""
    scope = {"path": path, "raw_path": raw, "root_path": root}

    assert target_below_mount(scope, "/acme") == (rest, prefix)
    assert target_below_mount(scope, "/acme/") == (rest, prefix)


@pytest.mark.parametrize(
    ("path", "raw"),
    [("/acmes", b"/acmes"), ("/x", b"/x"), ("/acme/x", b"/acme%2Fx"), ("/", b"/")],
)
def test_path_outside_of_a_given_mount(path: str, raw: bytes) -> None:
    """The mount is whole segments."""
    with pytest.raises(PathOutsideMount):
        target_below_mount({"path": path, "raw_path": raw}, "/acme")


def test_given_mount_starts_with_a_slash() -> None:
    """A name alone is a mistake of the code, not of the client."""
    with pytest.raises(ValueError, match="mount: 'acme' must start with '/'"):
        target_below_mount({"path": "/acme", "raw_path": b"/acme"}, "acme")
