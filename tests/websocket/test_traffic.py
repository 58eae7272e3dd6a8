"""Messages of every kind and size arrive whole and in order."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable

import pytest

from tests.support.gateways import until
from tests.support.websocket_client import Closed, WebSocketClient, open_websocket
from tests.support.websocket_frames import frame
from tests.support.websocket_origin import FramePeer, frames_from, until_left
from tests.websocket.gateways import every_server, no_tunnel_left, tunnels
from tests.websocket.upstreams import EchoApp, echo_server

pytestmark = pytest.mark.e2e


_CONT, _TEXT, _BINARY, _CLOSE = 0, 1, 2, 8
_TELL_CODES = ("websockets-sansio", "wsproto")
"""Servers that tell the app with which code they have failed a client's connection."""
_SIZES = [1, 125, 126, 127, 65_535, 65_536, 1_000_000]


@every_server
async def test_messages_of_every_kind_come_back(server: str) -> None:
    """Text, binary and empty messages, at every size of frame."""
    messages: list[str | bytes] = ["", b"", "grüße 🎉", b"\x00\xff\xfe", "\x00"]
    for size in _SIZES:
        messages += ["x" * size, b"\xff" * size]
    async with (
        echo_server(EchoApp()) as upstream,
        tunnels(upstream.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        for message in messages:
            await client.send(message)
            assert await client.recv() == message
        assert (await client.close(1000, "done")).code == 1000
        await no_tunnel_left(gateway)


@every_server
async def test_fragments_arrive_whole(server: str) -> None:
    """Fragments of either side are one message on the other, with control frames in between."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        peer.send(_TEXT, b"gr\xc3", fin=False)
        peer.send(9, b"ping")
        peer.send(_CONT, b"", fin=False)
        peer.send(_CONT, b"\xbc\xc3\x9fe")
        peer.send(_BINARY, b"a" * 300, fin=False)
        peer.send(_CONT, b"b" * 70_000)
        while not seen or seen[-1][0] != _CLOSE:
            seen.append(await peer.read())

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert await client.recv() == "grüße"
        assert await client.recv() == b"a" * 300 + b"b" * 70_000
        await client.send("fr", "ag", "", "ments")
        await client.send_frame(_BINARY, b"1", fin=False)
        await client.send_frame(9, b"in between")
        await client.send_frame(_CONT, b"2")
        await client.close(1000)

    assert [kind for kind in seen if kind[0] in (_TEXT, _BINARY)] == [
        (_TEXT, b"fragments"),
        (_BINARY, b"12"),
    ]


@every_server
async def test_message_above_16_mib_is_forwarded(server: str) -> None:
    """The limits of server and tunnel are 16 MiB by default, and can be raised."""
    message = bytes(range(256)) * (20 * 2**12)
    async with (
        echo_server(EchoApp(), ws="websockets-sansio") as upstream,
        tunnels(
            upstream.url,
            server=server,
            uvicorn={"ws_max_size": 2**27},
            hypercorn={"websocket_max_message_size": 2**27},
            websocket={"max_message_bytes": None},
        ) as gateway,
        open_websocket(gateway.address) as client,
    ):
        async with asyncio.timeout(50):
            sending = asyncio.create_task(client.send(message))
            received = await client.recv()
            await sending

    assert isinstance(received, bytes)
    assert hashlib.sha256(received).digest() == hashlib.sha256(message).digest()


@every_server
async def test_thousands_of_small_messages_keep_their_order(server: str) -> None:
    """None is lost, doubled or overtaken, in both directions at once."""
    count, batch = 5_000, 500

    async def script(peer: FramePeer) -> None:
        for _ in range(count):
            opcode, payload = await peer.read()
            peer.send(opcode, payload)
            await peer.writer.drain()
        await until_left(peer)

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):

        async def send() -> None:
            for start in range(0, count, batch):
                await client.send_many([b"%d" % n for n in range(start, start + batch)])

        async with asyncio.timeout(50):
            sending = asyncio.create_task(send())
            for number in range(count):
                assert await client.recv() == str(number)
            await sending


@every_server
async def test_text_of_the_client_that_is_no_utf8_ends_with_1007(server: str) -> None:
    """The upstream gets the code, or sees an abrupt end; no side sees a clean one.

    Finding it is the server's work: uvicorn's wsproto tells the app and not the client,
    hypercorn neither.
    """
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.send_frame(_TEXT, b"\xff\xfe")
        ended = await client.ended()
        await no_tunnel_left(gateway)

    assert ended.code == (1007 if server.startswith("websockets") else 1006)
    codes = [(opcode, payload[:2]) for opcode, payload in seen]
    expected = [(_CLOSE, b"\x03\xef")]
    assert codes == (expected if server in _TELL_CODES else [])


@every_server
async def test_text_of_the_upstream_that_is_no_utf8_ends_with_1007(server: str) -> None:
    """Both sides get the close code for invalid data."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        peer.send(_TEXT, b"good")
        peer.send(_TEXT, b"\xff")
        seen.append(await peer.read())

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert await client.recv() == "good"
        assert (await client.ended()).code == 1007

    assert [(opcode, payload[:2]) for opcode, payload in seen] == [(_CLOSE, b"\x03\xef")]


@every_server
async def test_message_of_the_upstream_over_the_limit_closes_1009(server: str) -> None:
    """``max_message_bytes`` limits messages of the upstream."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        peer.send(_BINARY, b"x" * 1000)
        peer.send(_BINARY, b"x" * 1001)
        seen.append(await peer.read())

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server, websocket={"max_message_bytes": 1000}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        assert await client.recv() == b"x" * 1000
        assert await client.ended() == Closed(1009, "message too big")

    assert [(opcode, payload[:2]) for opcode, payload in seen] == [(_CLOSE, b"\x03\xf1")]


@every_server
async def test_message_of_the_client_over_the_limit_closes_1009(server: str) -> None:
    """``max_message_bytes`` limits messages of the client, counted in bytes."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        while not seen or seen[-1][0] != _CLOSE:
            seen.append(await peer.read())

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server, websocket={"max_message_bytes": 1000}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.send("ü" * 500)
        await client.send("ü" * 501)
        assert await client.ended() == Closed(1009, "message too big")

    assert [opcode for opcode, _ in seen] == [_TEXT, _CLOSE]
    assert seen[1][1][:2] == b"\x03\xf1"


@every_server
async def test_message_over_the_servers_limit_closes_1009(server: str) -> None:
    """Uvicorn's ``--ws-max-size`` gives both sides its own close code."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())

    async with (
        frames_from(script) as origin,
        tunnels(
            origin.url,
            server=server,
            uvicorn={"ws_max_size": 1000},
            hypercorn={"websocket_max_message_size": 1000},
        ) as gateway,
        open_websocket(gateway.address) as client,
    ):
        await client.send(b"x" * 1001)
        assert (await client.ended()).code == 1009
        await no_tunnel_left(gateway)

    codes = [(opcode, payload[:2]) for opcode, payload in seen]
    assert codes == ([(_CLOSE, b"\x03\xf1")] if server in _TELL_CODES else [])


@every_server
async def test_permessage_deflate_of_the_client_ends_at_the_gateway(server: str) -> None:
    """The server decompresses; the upstream gets plain messages."""
    seen: list[tuple[int, bytes]] = []

    async def script(peer: FramePeer) -> None:
        seen.append(await peer.read())
        peer.send(_TEXT, b"down " * 100)
        await until_left(peer)

    offer = [(b"Sec-WebSocket-Extensions", b"permessage-deflate; client_no_context_takeover")]
    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address, headers=offer) as client,
    ):
        agreed = client.response.one(b"sec-websocket-extensions")
        assert agreed is not None
        assert agreed.startswith(b"permessage-deflate")
        deflate = zlib.compressobj(wbits=-12)
        packed = deflate.compress(b"up " * 100) + deflate.flush(zlib.Z_SYNC_FLUSH)
        await client.send_compressed(packed.removesuffix(b"\x00\x00\xff\xff"))
        opcode, payload, _ = await client.recv_frame()

    assert opcode == _TEXT
    assert zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff") == b"down " * 100
    assert len(payload) < 100
    assert seen == [(_TEXT, b"up " * 100)]


@every_server
async def test_compression_upstream_works(server: str) -> None:
    """With ``compression`` the upstream's hop is compressed, whatever the client's is."""
    app = EchoApp()
    async with (
        echo_server(app, ws="websockets-sansio", ws_per_message_deflate=True) as upstream,
        tunnels(upstream.url, server=server, websocket={"compression": True}) as gateway,
        open_websocket(gateway.address) as client,
    ):
        for message in ("x" * 100_000, b"y" * 100_000, "", "grüße"):
            await client.send(message)
            assert await client.recv() == message
        assert app.all(b"sec-websocket-extensions") == [
            b"permessage-deflate; client_max_window_bits"
        ]


async def test_many_tunnels_carry_long_mixes_at_once() -> None:
    """Text and binary, small and large, on many sockets at once, as a notebook does."""
    async with echo_server(EchoApp()) as upstream, tunnels(upstream.url) as gateway:

        async def talk(seat: int) -> int:
            async with open_websocket(gateway.address, f"/billing/kernels/{seat}") as client:
                sent: list[str | bytes] = []
                for turn in range(30):
                    size = (seat * 7919 + turn * 104_729) % 50_000
                    sent.append(f"{seat}:{turn}:" + "é" * (size // 20))
                    sent.append(bytes([seat % 256, turn]) * size)
                sending = asyncio.create_task(_send_all(client, sent))
                received = [await client.recv() for _ in sent]
                await sending
                assert received == sent
                return (await client.close(1000)).code or 0

        codes = await asyncio.gather(*(talk(seat) for seat in range(40)))
        await no_tunnel_left(gateway)
        tally = gateway.balancer.destinations[0].in_flight

    assert codes == [1000] * 40
    assert tally == 0


async def _send_all(client: WebSocketClient, messages: list[str | bytes]) -> None:
    for message in messages:
        await client.send(message)


@every_server
async def test_slow_client_stops_the_upstream(server: str) -> None:
    """A client that does not read stops an endless upstream."""
    sent = 0

    async def script(peer: FramePeer) -> None:
        nonlocal sent
        data = frame(_BINARY, b"x" * 16_000)
        while True:
            peer.writer.write(data)
            await peer.writer.drain()
            sent += 16_000

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        stalled_at = await _stalled(lambda: sent)
        for _ in range(stalled_at // 16_000):
            assert await client.recv() == b"x" * 16_000
        await until(lambda: sent > stalled_at)

    # What the kernel's buffers of two connections and those of server, tunnel and test hold.
    assert stalled_at < 30_000_000


@every_server
async def test_slow_upstream_stops_the_client(server: str) -> None:
    """An upstream that does not read stops an endless client, and later gets everything."""
    go = asyncio.Event()
    taken = 0

    async def script(peer: FramePeer) -> None:
        nonlocal taken
        await go.wait()
        while (received := await peer.read())[0] == _BINARY:
            taken += len(received[1])

    async with (
        frames_from(script) as origin,
        tunnels(origin.url, server=server) as gateway,
        open_websocket(gateway.address) as client,
    ):
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while not go.is_set():
                await client.send(b"x" * 16_000)
                sent += 16_000

        flooding = asyncio.create_task(flood())
        stalled_at = await _stalled(lambda: sent)
        go.set()
        async with asyncio.timeout(20):
            await flooding
        await client.close(1000)
        await no_tunnel_left(gateway)

    assert stalled_at < 30_000_000
    assert taken == sent


async def _stalled(progress: Callable[[], int]) -> int:
    """Wait until a counter that has begun to grow stops for 0.2 s; give its value."""
    await until(lambda: progress() > 0)
    before, still = -1, 0
    while still < 20:
        await asyncio.sleep(0.01)
        still = still + 1 if progress() == before else 0
        before = progress()
    return before
