"""Ends of tunnels: codes and reasons in both directions, lost connections, and their log.

Long because each end is tested on both sides and in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import pytest

from tests.support.gateways import Gateway, until
from tests.support.websocket_client import Closed, open_websocket
from tests.support.websocket_origin import FramePeer, frames_from, until_left
from tests.websocket.gateways import every_server, every_uvicorn, no_tunnel_left, tunnels

pytestmark = pytest.mark.e2e


_TEXT, _CLOSE = 1, 8

# The registry, without what may not be sent, and both borders of what apps may define.
_CODES: Final = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]


async def _logged_end(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, level: str | None = None
) -> tuple[str, int]:
    """The reason and code of the one tunnel that ended, as logged; counted once as well."""
    await no_tunnel_left(gateway)
    records = [one for one in caplog.records if one.name == "fastapi_proxy_di.websocket"]
    assert len(records) == 1
    assert level is None or records[0].levelname == level
    record = vars(records[0])
    assert record["upstream"] == "billing"
    assert record["destination"] == gateway.balancer.destinations[0].url
    status = gateway.balancer.status()
    assert status.tunnels == 0
    assert status.tunnel_ends == {record["reason"]: 1}
    return record["reason"], record["code"]


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastapi_proxy_di.websocket")


@every_uvicorn
@pytest.mark.parametrize("code", _CODES)
async def test_close_of_the_client_reaches_the_upstream(
    server: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Code and reason, after the last message; the client gets its own code back."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.extend([await peer.read(), await peer.read()])

    async with frames_from(script) as origin, tunnels(origin.url, server=server) as gateway:
        async with open_websocket(gateway.address) as client:
            await client.send("last")
            echoed = await client.close(code, "tschüß")
        end = await _logged_end(gateway, caplog)
        await origin.all_left()

    assert seen[0] == (_TEXT, b"last")
    if (server, code) == ("wsproto", 1014):
        # wsproto does not know it and calls it the client's protocol error.
        assert echoed.code == 1006
        assert (seen[1][1][:2], end) == (b"\x03\xea", ("client_closed", 1002))
    else:
        assert echoed.code == code
        assert seen[1] == (_CLOSE, code.to_bytes(2) + "tschüß".encode())
        assert end == ("client_closed", code)


@every_uvicorn
async def test_empty_close_of_the_client_stays_empty(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The upstream gets no code either."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with frames_from(script) as origin, tunnels(origin.url, server=server) as gateway:
        async with open_websocket(gateway.address) as client:
            await client.close(None)
        end = await _logged_end(gateway, caplog)

    assert seen == [(_CLOSE, b"")]
    assert end == ("client_closed", 1005)


async def test_close_of_the_client_under_hypercorn_is_an_abrupt_end_upstream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Hypercorn gives its app 1006 for each close, so the upstream cannot get a code."""
    seen: list[bytes] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.reader.read())

    async with frames_from(script) as origin, tunnels(origin.url, server="hypercorn") as gateway:
        async with open_websocket(gateway.address) as client:
            await client.close(1001, "bye")
        end = await _logged_end(gateway, caplog)
        await origin.all_left()

    assert b"".join(seen) == b""
    assert end == ("client_vanished", 1006)


@every_server
@pytest.mark.parametrize("code", _CODES)
async def test_close_of_the_upstream_reaches_the_client(
    server: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Code and reason, after the last message."""
    payload = code.to_bytes(2) + "tschüß".encode()
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        peer.send(_TEXT, b"last")
        peer.send(_CLOSE, payload)
        seen.append(await peer.read())

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert await client.recv() == "last"
        # 1014 is a protocol error to wsproto and gorilla/websocket.
        assert await client.recv() == Closed(1011 if code == 1014 else code, "tschüß")
        client.client.close()
        end = await _logged_end(gateway, caplog)

    assert seen == [(_CLOSE, payload)]
    assert end == ("upstream_closed", code)


@every_server
async def test_empty_close_of_the_upstream_becomes_1000(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """ASGI cannot send an empty close frame."""

    async def script(peer: FramePeer) -> None:
        peer.send(_CLOSE)
        await until_left(peer)

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert await client.recv() == Closed(1000)
        client.client.close()
        end = await _logged_end(gateway, caplog)

    assert end == ("upstream_closed", 1005)


@every_server
@pytest.mark.parametrize("code", [1004, 1005, 1006, 1015, 1016, 2999, 5000, 0])
async def test_reserved_code_of_the_upstream_becomes_1011(
    server: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A code that may not be sent is the upstream's fault."""

    async def script(peer: FramePeer) -> None:
        peer.send(_CLOSE, code.to_bytes(2))
        await until_left(peer)

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert (await client.ended()).code == 1011
        client.client.close()
        end = await _logged_end(gateway, caplog)

    assert end == ("upstream_protocol_error", 1002)


@every_server
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_lost_client_breaks_off_the_upstream(
    server: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, and without a close frame, which would look clean."""
    rest: list[bytes] = []

    async def script(peer: FramePeer) -> None:
        await peer.read()
        rest.append(await peer.reader.read())

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server, websocket={"ping_interval": None}) as gateway,
    ):
        async with open_websocket(gateway.address) as client:
            await client.send("going")
            await until(lambda: gateway.in_flight)
            _break(client.client.reset, client.client.close, how)
            await origin.all_left()
        assert await _logged_end(gateway, caplog) == ("client_vanished", 1006)
        destination = gateway.balancer.destinations[0]
        await until(lambda: not destination.in_flight)
        assert (destination.failures, destination.completed) == (0, 1)

    assert b"".join(rest) == b""


@every_server
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_lost_upstream_closes_the_client(
    server: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With 1011 and why; a WARNING names the destination, and the failure counts."""

    async def script(peer: FramePeer) -> None:
        await peer.read()
        _break(peer.reset, peer.writer.close, how)

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server, websocket={"ping_interval": None}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.send("go")
        assert await client.ended() == Closed(1011, "upstream disconnected")
        client.client.close()
        assert await _logged_end(gateway, caplog, "WARNING") == ("upstream_vanished", 1006)
        destination = gateway.balancer.destinations[0]
        await until(lambda: not destination.in_flight)
        assert (destination.failures, destination.completed) == (1, 0)


def _break(reset: Callable[[], None], close: Callable[[], object], how: str) -> None:
    if how == "reset":
        reset()
    else:
        close()


@every_server
async def test_broken_frames_of_the_upstream_are_1011(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """1002 would blame the client."""

    async def script(peer: FramePeer) -> None:
        peer.writer.write(b"\xf1\x00")
        await until_left(peer)

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert (await client.ended()).code == 1011
        client.client.close()
        end = await _logged_end(gateway, caplog)

    assert end == ("upstream_protocol_error", 1002)


@every_server
async def test_broken_frames_of_the_client_are_no_clean_end(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The upstream gets 1002 or an abrupt end."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with frames_from(script) as origin, tunnels(origin.url, server=server) as gateway:
        async with open_websocket(gateway.address) as client:
            await client.client.send(b"\xf1\x80mask")
            assert (await client.ended()).code != 1000
        await _logged_end(gateway, caplog)

    assert [(opcode, payload[:2]) for opcode, payload in seen] in (
        [],
        [(_CLOSE, b"\x03\xea")],
    )


@every_server
async def test_longest_reason_is_forwarded(server: str) -> None:
    """The most that a close frame holds."""
    reason = "ü" * 61

    async def script(peer: FramePeer) -> None:
        peer.send(_CLOSE, b"\x0f\xa0" + reason.encode())
        await until_left(peer)

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert await client.recv() == Closed(4000, reason)


@every_server
async def test_simultaneous_closes_leave_nothing(server: str) -> None:
    """Both sides close at the same moment, many times."""

    async def script(peer: FramePeer) -> None:
        await peer.read()
        peer.send(_CLOSE, b"\x03\xe8")
        await until_left(peer)

    async with frames_from(script) as origin, tunnels(origin.url, server=server) as gateway:

        async def visit() -> None:
            async with open_websocket(gateway.address) as client:
                await client.send("go")
                await client.close(1000)

        await asyncio.gather(*(visit() for _ in range(50)))
        await no_tunnel_left(gateway)
        await origin.all_left()
        ends = gateway.balancer.status().tunnel_ends

    assert sum(ends.values()) == 50
    closed = "client_vanished" if server == "hypercorn" else "client_closed"
    assert set(ends) <= {closed, "upstream_closed"}


async def test_invalid_data_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The upstream sends text that is not UTF-8."""

    async def script(peer: FramePeer) -> None:
        peer.send(_TEXT, b"\xff")
        await until_left(peer)

    async with (
        frames_from(script) as origin,
        tunnels(origin.url) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.ended()
        assert await _logged_end(gateway, caplog, "WARNING") == ("invalid_data", 1007)


@pytest.mark.parametrize(("sender", "level"), [("client", "DEBUG"), ("upstream", "WARNING")])
async def test_message_too_big_is_logged(
    sender: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """From either side; only the upstream's is a WARNING."""

    async def script(peer: FramePeer) -> None:
        if sender == "upstream":
            peer.send(_TEXT, b"x" * 11)
        await until_left(peer)

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, websocket={"max_message_bytes": 10}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        if sender == "client":
            await client.send("x" * 11)
        await client.ended()
        assert await _logged_end(gateway, caplog, level) == ("message_too_big", 1009)


async def test_ping_timeout_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An upstream sends no pong."""

    async def deaf(peer: FramePeer) -> None:
        await asyncio.Event().wait()

    async with (
        frames_from(deaf) as origin,
        tunnels(origin.url, websocket={"ping_interval": 0.02, "ping_timeout": 0.02}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.ended()
        assert await _logged_end(gateway, caplog, "WARNING") == ("upstream_ping_timeout", 1006)


async def test_drain_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The drain closed the tunnel."""
    async with (
        frames_from(until_left) as origin,
        tunnels(origin.url) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await gateway.balancer.drain(origin.url, timeout=0)
        await client.ended()
        assert await _logged_end(gateway, caplog, "DEBUG") == ("drained", 1001)


@every_uvicorn
async def test_shutdown_is_logged(server: str, caplog: pytest.LogCaptureFixture) -> None:
    """The shutdown closed the tunnel."""
    async with frames_from(until_left) as origin:
        async with (
            contextlib.AsyncExitStack() as stack,
            tunnels(origin.url, server=server) as gateway,
        ):
            await stack.enter_async_context(open_websocket(gateway.address))
            balancer = gateway.balancer
            await until(lambda: balancer.status().tunnels)
        ends = balancer.status().tunnel_ends

    (record,) = (one for one in caplog.records if one.name == "fastapi_proxy_di.websocket")
    assert (record.levelname, vars(record)["reason"], vars(record)["code"]) == (
        "DEBUG",
        "shutdown",
        1012,
    )
    assert ends == {"shutdown": 1}


@every_server
@pytest.mark.parametrize("code", [1004, 1005, 1006, 1015, 1016, 2999, 5000, 0])
async def test_reserved_code_of_the_client_is_no_clean_end(
    server: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The upstream gets 1002 or an abrupt end."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with frames_from(script) as origin, tunnels(origin.url, server=server) as gateway:
        async with open_websocket(gateway.address) as client:
            ended = await client.close(code)
        end = await _logged_end(gateway, caplog)
        await origin.all_left()

    # Those of `websockets` tell the client what is wrong, the others break it off.
    assert ended.code == (1002 if server.startswith("websockets") else 1006)
    if server in ("websockets-sansio", "wsproto"):
        assert [(opcode, payload[:2]) for opcode, payload in seen] == [(_CLOSE, b"\x03\xea")]
        assert end == ("client_closed", 1002)
    else:
        assert seen == []
        assert end == ("client_vanished", 1006)
