"""Tests of the test helpers: they must report faults instead of hiding them."""

import asyncio
import subprocess
import sys

import pytest
import uvicorn
from hypercorn.config import Config as HypercornConfig

from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import Connection, PeerLeft, ScriptedOrigin, chunk, echo
from tests.support.servers import StartupFailed, run_app


def _address(origin: ScriptedOrigin) -> tuple[str, int]:
    return ("127.0.0.1", origin.port)


async def test_failing_script_fails_the_test() -> None:
    """A failed assertion of a script fails the test."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        raise AssertionError("wrong request")

    origin = await ScriptedOrigin(script).__aenter__()
    async with connect(_address(origin)) as client:
        await client.send(request())
        with pytest.raises(EOFError):
            await client.read_response()

    with pytest.raises(ExceptionGroup, match="script failed"):
        await origin.__aexit__(None, None, None)


async def test_origin_records_exact_bytes() -> None:
    """Case, order and repeats of headers are recorded."""
    async with ScriptedOrigin(echo) as origin:
        reply = await fetch(
            _address(origin), "POST", "/a?b", [(b"X-A", b"1"), (b"x-a", b"2")], b"c"
        )

    assert reply.json() == {"method": "POST", "target": "/a?b", "body": "c"}
    assert origin.request.headers[1:3] == [(b"X-A", b"1"), (b"x-a", b"2")]
    assert origin.request.all(b"x-A") == [b"1", b"2"]


async def test_cut_upload_is_not_complete() -> None:
    """A body that ends too early ends the script."""
    left: list[bool] = []

    async def script(connection: Connection) -> None:
        received = await connection.read_head()
        with pytest.raises(PeerLeft):
            await connection.read_body(received)
        left.append(received.complete)

    async with ScriptedOrigin(script) as origin:
        async with connect(_address(origin)) as client:
            await client.send(request("POST", headers=[(b"Content-Length", b"9")]) + b"short")
        await origin.all_left()

    assert left == [False]


@pytest.mark.parametrize(
    ("raw", "ending"),
    [
        (b"Content-Length: 2\r\n\r\nok", Ending.LENGTH),
        (b"Content-Length: 3\r\n\r\nok", Ending.BROKEN),
        (
            b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"ok") + b"0\r\nX-T: 1\r\n\r\n",
            Ending.LAST_CHUNK,
        ),
        (b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"ok"), Ending.BROKEN),
        (b"\r\nok", Ending.CLOSE),
    ],
)
async def test_client_shows_how_a_response_ended(raw: bytes, ending: Ending) -> None:
    """A transfer that broke off is not taken for a complete one."""

    async def script(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n" + raw)

    async with ScriptedOrigin(script) as origin, connect(_address(origin)) as client:
        await client.send(request())
        reply = await client.read_response()

        assert await client.at_end()

    assert (reply.body, reply.ending) == (b"ok", ending)
    assert reply.whole is (ending in (Ending.LENGTH, Ending.LAST_CHUNK))


@pytest.mark.e2e
async def test_failed_start_has_the_reason() -> None:
    """The error has the app's text, and its exception as the cause."""

    async def app(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("no database")

    with pytest.raises(StartupFailed, match="no database") as caught:
        await run_app(app).__aenter__()

    assert isinstance(caught.value.__cause__, RuntimeError)


def test_server_without_the_mark_fails_the_test() -> None:
    """Making a server in a test without the mark ``e2e`` fails with a text that names the mark."""
    with pytest.raises(pytest.fail.Exception, match="marked e2e"):
        uvicorn.Server(uvicorn.Config("no:app"))
    with pytest.raises(pytest.fail.Exception, match="marked e2e"):
        HypercornConfig()


def test_process_without_the_mark_fails_the_test() -> None:
    """One that asyncio starts as well."""
    with pytest.raises(pytest.fail.Exception, match="marked e2e"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with pytest.raises(pytest.fail.Exception, match="marked e2e"):
        asyncio.run(asyncio.create_subprocess_exec(sys.executable))


@pytest.mark.e2e
def test_process_with_the_mark_runs() -> None:
    """The mark lifts the ban."""
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0
