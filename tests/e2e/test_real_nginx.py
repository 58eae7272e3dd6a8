"""The gateway in front of a real nginx: nginx gets and sends the right bytes."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from fastapi_proxy_di import Balancer
from tests.e2e.servers import NGINX
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import Ending, connect, fetch, request
from tests.support.origins import chunk
from tests.support.processes import running
from tests.support.servers import free_port

pytestmark = pytest.mark.e2e


_CONFIG: Final = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    log_format target $request_uri;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    merge_slashes off;
    types {{ }}
    default_type text/plain;
    server {{
        listen 127.0.0.1:{plain};
        location / {{ return 200 "$request_method $request_uri|$http_host|$http_x_a"; }}
        location /brief/ {{ keepalive_timeout 1ms; return 200 "ok"; }}
        location /file {{ alias {folder}/file; }}
        gzip_types text/plain;
        gzip_proxied any;
        location /zipped {{ alias {folder}/file; gzip on; }}
        location /small {{ client_max_body_size 1k; proxy_pass http://127.0.0.1:{plain}/echo; }}
        location /put/ {{ root {folder}; dav_methods PUT; client_max_body_size 0; }}
        location /cookies {{
            add_header Set-Cookie "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT";
            add_header Set-Cookie "b=2";
            add_header Set-Cookie "a=3";
            return 204;
        }}
    }}
    server {{
        listen 127.0.0.1:{http2} http2;
        listen 127.0.0.2:{http2} http2;
        keepalive_requests 100;
        access_log {folder}/targets target;
        location / {{ return 200 "ok"; }}
    }}
    server {{
        listen 127.0.0.1:{tls} ssl http2;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.pem;
        ssl_client_certificate {folder}/ca.pem;
        ssl_verify_client on;
        location / {{ return 200 "$server_protocol $ssl_client_verify $request_uri"; }}
    }}
}}
"""
_FILE: Final = b"".join(b"line %d\n" % number for number in range(20_000))


@dataclass(frozen=True, slots=True)
class Origin:
    """A running nginx and its files.

    Attributes:
        plain: Address without TLS.
        http2: Address for HTTP/2 without TLS, where a connection ends after 100 requests.
        tls: Address with TLS; clients must show a certificate.
        folder: ``put/`` is where uploads go; ``ca.pem`` and ``client.pem`` open ``tls``.
    """

    plain: str
    http2: str
    tls: str
    folder: Path

    @property
    def certificates(self) -> dict[str, Any]:
        """Settings with a client certificate that nginx accepts."""
        return {
            "ca_file": str(self.folder / "ca.pem"),
            "client_cert": str(self.folder / "client.pem"),
        }


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Origin]:
    """Run nginx as the current user."""
    if NGINX is None:  # pragma: no cover
        pytest.skip("nginx is not installed; on Debian and Ubuntu: apt-get install nginx-light")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, identity in (("server.pem", "127.0.0.1"), ("client.pem", "gateway@example.org")):
        authority.issue_cert(identity).private_key_and_cert_chain_pem.write_to_path(tmp_path / name)
    (tmp_path / "put").mkdir()
    (tmp_path / "file").write_bytes(_FILE)
    plain, http2, tls = free_port(), free_port(), free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(_CONFIG.format(folder=tmp_path, plain=plain, http2=http2, tls=tls))
    async with running(NGINX, "-p", str(tmp_path), "-c", str(config)) as server:
        await server.line("start worker process|using the")
        yield Origin(
            f"http://127.0.0.1:{plain}",
            f"http://127.0.0.1:{http2}",
            f"https://127.0.0.1:{tls}",
            tmp_path,
        )


@pytest.mark.parametrize(
    "path",
    [
        "/a%2Fb",
        "/a%20b",
        "/a%3Fb",
        "/a%0Ab",
        "//x",
        "/a//b//",
        "/a;v=1/b;w",
        "/.",
        "/a/./b/../c",
        "/a/%2e%2E/x",
        "/caf%C3%A9",
        "/a%25b?q=%20+&q=&q",
    ],
)
async def test_nginx_gets_the_raw_target(origin: Origin, path: str) -> None:
    """``$request_uri`` is the client's raw target."""
    async with gateway(origin.plain, dot_segments="pass") as gate:
        reply = await fetch(gate.address, target="/billing" + path, headers=[(b"X-A", b"caf\xe9")])

    host = origin.plain.removeprefix("http://").encode()
    assert reply.body == b"GET %s|%s|caf\xe9" % (path.encode(), host)


@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PROPFIND"])
async def test_nginx_gets_the_method(origin: Origin, method: str) -> None:
    """Every method that nginx supports is forwarded."""
    async with gateway(origin.plain) as gate:
        reply = await fetch(gate.address, method, "/billing/x")

    assert reply.body.startswith(method.encode() + b" /x|")


async def test_refusal_of_trace_by_nginx_is_forwarded(origin: Origin) -> None:
    """The 405 of nginx is forwarded like any response."""
    async with gateway(origin.plain) as gate:
        reply = await fetch(gate.address, "TRACE", "/billing/x", [(b"Max-Forwards", b"3")])

    assert (reply.status, reply.ending) == (405, Ending.LENGTH)


async def test_file_of_nginx_with_range_head_and_etag(origin: Origin) -> None:
    """GET, HEAD, a range, and a 304 for a known ETag."""
    async with gateway(origin.plain) as gate, connect(gate.address) as client:

        async def get(method: str = "GET", *headers: tuple[bytes, bytes]) -> Any:
            await client.send(request(method, "/billing/file", headers))
            return await client.read_response(method)

        whole = await get()
        head = await get("HEAD")
        part = await get("GET", (b"Range", b"bytes=5-9"))
        known = await get("GET", (b"If-None-Match", whole.one(b"etag")))

    length = b"%d" % len(_FILE)
    assert (whole.status, whole.body, whole.one(b"content-length")) == (200, _FILE, length)
    assert (head.status, head.one(b"content-length")) == (200, length)
    assert (part.status, part.body) == (206, _FILE[5:10])
    assert part.one(b"content-range") == b"bytes 5-9/" + length
    assert (known.status, known.one(b"etag")) == (304, whole.one(b"etag"))
    assert [reply.one(b"server") for reply in (whole, head, part, known)] == [b"uvicorn"] * 4


async def test_compressed_response_of_nginx_stays_compressed(origin: Origin) -> None:
    """Chunked and gzip for clients that accept it; ``gzip_proxied``, because requests carry Via."""
    async with gateway(origin.plain) as gate:
        plain = await fetch(gate.address, target="/billing/zipped")
        zipped = await fetch(
            gate.address, target="/billing/zipped", headers=[(b"Accept-Encoding", b"gzip")]
        )

    assert (plain.body, plain.one(b"content-encoding")) == (_FILE, None)
    assert (zipped.one(b"content-encoding"), zipped.ending) == (b"gzip", Ending.LAST_CHUNK)
    assert gzip.decompress(zipped.body) == _FILE


async def test_three_cookies_of_nginx_stay_three(origin: Origin) -> None:
    """The cookies are on a response without a body."""
    async with gateway(origin.plain) as gate:
        reply = await fetch(gate.address, target="/billing/cookies")

    assert (reply.status, reply.ending) == (204, Ending.NO_BODY)
    assert reply.all(b"set-cookie") == [
        b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
        b"b=2",
        b"a=3",
    ]


@pytest.mark.parametrize("framing", ["length", "chunked", "empty"])
async def test_nginx_stores_uploads(origin: Origin, framing: str) -> None:
    """PUT of some megabytes, chunked, and empty."""
    body = b"" if framing == "empty" else os.urandom(5_000_000)
    async with gateway(origin.plain) as gate, connect(gate.address) as client:
        if framing == "chunked":
            coding = (b"Transfer-Encoding", b"chunked")
            await client.send(request("PUT", "/billing/put/it", [coding]))
            for start in range(0, len(body), 100_000):
                await client.send(chunk(body[start : start + 100_000]))
            await client.send(chunk(b""))
        else:
            await client.send(request("PUT", "/billing/put/it", body=body))
        reply = await client.read_response()

    stored = (origin.folder / "put" / "it").read_bytes()
    assert reply.status == 201
    assert hashlib.sha256(stored).digest() == hashlib.sha256(body).digest()


async def test_continue_of_nginx_reaches_the_client_before_the_body(origin: Origin) -> None:
    """The client gets 100 Continue from nginx before it sends its body."""
    head = [(b"Expect", b"100-continue"), (b"Content-Length", b"5")]
    async with (
        gateway(origin.plain, limits={"expect_continue": 30}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("PUT", "/billing/put/asked", head))
        interim = await client.read_head()
        await client.send(b"hello")
        reply = await client.read_response()

    assert (interim.status, reply.status) == (100, 201)
    assert (origin.folder / "put" / "asked").read_bytes() == b"hello"


@pytest.mark.parametrize("expect", [False, True])
async def test_nginx_refuses_a_large_upload_early(origin: Origin, expect: bool) -> None:
    """The client gets 413 while it still has nearly all of its body to send."""
    headers = [(b"Content-Length", b"%d" % (50 << 20))]
    headers += [(b"Expect", b"100-continue")] if expect else []
    async with (
        gateway(origin.plain, limits={"expect_continue": 30}) as gate,
        connect(gate.address) as client,
    ):
        await client.send(request("POST", "/billing/small", headers))
        if not expect:
            await client.send(bytes(65536))
        reply = await client.read_response()

    assert (reply.status, reply.ending) == (413, Ending.LENGTH)
    assert reply.informational == []


async def test_get_survives_connections_that_nginx_closes(origin: Origin) -> None:
    """Nginx closes idle connections at once, so most requests meet one that is closing."""
    async with gateway(origin.plain) as gate, connect(gate.address) as client:
        statuses = []
        for number in range(300):
            await client.send(request(target="/billing/brief/"))
            statuses.append((await client.read_response()).status)
            await asyncio.sleep(number % 4 * 0.0005)  # before, at and after its close

    assert statuses == [200] * 300


@pytest.mark.parametrize(("version", "protocol"), [("1.1", b"HTTP/1.1"), ("2", b"HTTP/2.0")])
async def test_nginx_and_gateway_verify_each_others_certificate(
    origin: Origin, version: str, protocol: bytes
) -> None:
    """Over HTTP/1.1 and HTTP/2."""
    async with gateway(origin.tls, tls=origin.certificates, http_version=version) as gate:
        reply = await fetch(gate.address, target="/billing/a%2Fb")

    assert (reply.status, reply.body) == (200, protocol + b" SUCCESS /a%2Fb")


async def test_nginx_refuses_a_gateway_without_a_certificate(origin: Origin) -> None:
    """Nginx responds with an HTTP error, which is forwarded."""
    ca_file = origin.certificates["ca_file"]
    async with gateway(origin.tls, tls={"ca_file": ca_file}) as gate:
        refused = await fetch(gate.address, target="/billing/x")
    async with gateway(origin.tls) as gate:
        unknown = await fetch(gate.address, target="/billing/x")

    assert refused.status == 400
    assert b"No required SSL certificate" in refused.body
    assert unknown.status == 502


async def test_posts_survive_the_end_of_http2_connections(origin: Origin) -> None:
    """Nginx ends a connection after 100 requests; what it has not processed is sent again.

    RFC 9113 section 6.8: streams above the last one of a GOAWAY were not processed. nginx's
    record shows that no request is processed twice.
    """
    count = 1000
    record = origin.folder / "targets"
    settings = billing(
        origin.http2,
        origin.http2.replace("127.0.0.1", "127.0.0.2"),
        http_version="2",
        ejection={"consecutive": 1},
        # On a busy machine one turn of the loop, with a thousand clients, takes five seconds.
        timeouts={"connect": 60},
    )
    async with Balancer.from_settings(settings) as balancer:
        replies = await asyncio.gather(
            *(balancer.client.post(f"/{number}", content=b"x" * 100) for number in range(count))
        )
        await until(lambda: record.read_bytes().count(b"\n") >= count)
        ejected = len(balancer.destinations) - len(balancer.available)

    targets = record.read_text().splitlines()
    assert {reply.status_code for reply in replies} == {200}
    assert sorted(targets) == sorted(f"/{number}" for number in range(count))
    assert not ejected
