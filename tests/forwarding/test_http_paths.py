"""Paths: the part below the mount is forwarded byte for byte, or the request is refused."""

import pytest

from tests.support.gateways import gateway
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/billing/x", "/x"),
        ("/billing/", "/"),
        ("/billing/x/", "/x/"),
        ("/billing/a%2Fb", "/a%2Fb"),
        ("/billing/a%2fb", "/a%2fb"),
        ("/billing/%2Fx", "/%2Fx"),
        ("/billing/a%20b", "/a%20b"),
        ("/billing/a%3Fb", "/a%3Fb"),
        ("/billing/a%23b", "/a%23b"),
        ("/billing/a%00b", "/a%00b"),
        ("/billing/a%0Ab", "/a%0Ab"),
        ("/billing/a%0D%0Ab", "/a%0D%0Ab"),
        ("/billing/a%25b", "/a%25b"),
        ("/billing/a%252Fb", "/a%252Fb"),
        ("/billing/%41%7e", "/%41%7e"),
        ("/billing//x", "//x"),
        ("/billing//other.example/x", "//other.example/x"),
        ("/billing/a//b//", "/a//b//"),
        ("/billing/a;v=1/b;w", "/a;v=1/b;w"),
        ("/billing/;", "/;"),
        ("/billing/.", "/."),
        ("/billing/./x", "/./x"),
        ("/billing/a/../x", "/a/../x"),
        ("/billing/a/..", "/a/.."),
        ("/billing/%2e/x", "/%2e/x"),
        ("/billing/a/%2e%2E/x", "/a/%2e%2E/x"),
        ("/billing/a/..%2fx", "/a/..%2fx"),
        ("/billing/a/..%5cx", "/a/..%5cx"),
        ("/billing/...", "/..."),
        ("/billing/caf%C3%A9", "/caf%C3%A9"),
        ("/billing/caf%c3%a9", "/caf%c3%a9"),
        ("/billing/%FF%FE", "/%FF%FE"),
        ("/billing/a+b", "/a+b"),
        ("/billing/a:80@b", "/a:80@b"),
        ("/billing/http://other.example/", "/http://other.example/"),
        ("/billing/billing/x", "/billing/x"),
        ("/bill%69ng/x", "/x"),
        ("/%62illing/", "/"),
    ],
)
async def test_path_is_sent_unchanged(target: str, sent: str) -> None:
    """The raw path below the mount is not decoded, encoded or normalised."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        response = await fetch(gate.address, target=target)

    assert response.status == 200
    assert origin.request.target == sent.encode()
    assert origin.request.one(b"host") == origin.authority.encode()


@pytest.mark.parametrize(
    "target",
    [
        "/billing%2Fx",
        "/billing%2fx",
        "/billing%2F",
        "/billingx",
        "/",
        "/x/billing/x",
        "//billing/x",
    ],
)
async def test_path_outside_the_mount_is_not_found(target: str) -> None:
    """An encoded slash does not end a segment, and a longer name is another segment."""
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        response = await fetch(gate.address, target=target)

    assert response.status == 404
    assert origin.connections == 0


@pytest.mark.parametrize("base", ["", "/base", "/base/v1/"])
@pytest.mark.parametrize(
    "target",
    [
        "/billing/..",
        "/billing/../x",
        "/billing/../billing/x",
        "/billing/%2e%2e/x",
        "/billing/%2E./x",
        "/billing/..%2fx",
        "/billing/..%5Cx",
        "/billing/..\\x",
        "/billing/a/../../x",
        "/billing/a/%2e%2e/%2e%2e/x",
        "/billing/./../x",
        "/billing/a%2f..%2f..%2fx",
    ],
)
async def test_path_that_climbs_out_is_refused(target: str, base: str) -> None:
    """Dot segments above the mount, in any spelling, never reach a destination."""
    async with ScriptedOrigin() as origin, gateway(origin.url + base) as gate:
        response = await fetch(gate.address, target=target)

    assert response.status == 400
    assert origin.connections == 0


@pytest.mark.parametrize(
    ("base", "target", "sent"),
    [
        ("/base", "/billing", "/base"),
        ("/base", "/billing/", "/base/"),
        ("/base", "/billing/x", "/base/x"),
        ("/base/", "/billing", "/base"),
        ("/base/", "/billing/x", "/base/x"),
        ("/a/b", "/billing//x?q=1", "/a/b//x?q=1"),
        ("/", "/billing/x", "/x"),
    ],
)
async def test_path_is_joined_to_the_base_path(base: str, target: str, sent: str) -> None:
    """The destination's base path comes first, with exactly one slash in between."""
    async with ScriptedOrigin() as origin, gateway(origin.url + base) as gate:
        await fetch(gate.address, target=target)

    assert origin.request.target == sent.encode()


@pytest.mark.parametrize(
    ("target", "sent"),
    [("/billing/a%2Fb", "/a%2Fb"), ("/billing/", "/"), ("/bill%69ng/x", "/x")],
)
async def test_root_path_is_not_sent(target: str, sent: str) -> None:
    """The server's root_path is in front of the mount."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, server={"root_path": "/api"}) as gate,
    ):
        await fetch(gate.address, target=target)

    assert origin.request.target == sent.encode()


async def test_path_in_front_of_the_path_parameter_belongs_to_the_mount() -> None:
    """The part of ``path=`` before ``{path:path}`` is not sent."""
    async with (
        ScriptedOrigin() as origin,
        gateway(origin.url, router={"path": "/v1/{path:path}"}) as gate,
    ):
        missing = await fetch(gate.address, target="/billing/x")
        found = await fetch(gate.address, target="/billing/v1/x")

    assert missing.status == 404
    assert found.status == 200
    assert origin.request.target == b"/x"
