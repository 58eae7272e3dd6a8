"""Writes the configuration files of nginx as origin and as contender."""

from pathlib import Path
from typing import Final

from tests.benchmarks.wire_format import GET_BODY_BYTES, TRANSFER_BYTES

_COMMON: Final = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16000; multi_accept on; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_body_buffer_size 64k;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    tcp_nodelay on;
    sendfile on;
    open_file_cache max=16 inactive=600s;
    open_file_cache_valid 600s;
{servers}
}}
"""

# `mirror` reads the whole request body before the response; a static file refuses POST with 405,
# which the error page turns into the 1 KiB response.
_ORIGIN: Final = """\
    server {{
{listen}
        root {directory}/www;
        add_header x-request-length $request_length;
        location = /post {{
            alias {directory}/www/1k;
            mirror /discard;
            error_page 405 =200 /1k;
        }}
        location = /discard {{ internal; return 204; }}
    }}
"""

_PROXY: Final = """\
    upstream origin {{
        server {origin};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    map $http_upgrade $connection_header {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 600s;
            proxy_set_header Connection $connection_header;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
        }}
    }}
"""


def loopback_addresses(count: int) -> list[str]:
    """`count` different addresses of the loopback network, the usual one first."""
    return [f"127.0.{index // 250}.{index % 250 + 1}" for index in range(count)]


def origin_config(directory: Path, port: int, addresses: list[str]) -> Path:
    """Write a static origin with `/1k`, `/post` and `/100m`; gives the file's path."""
    www = directory / "www"
    www.mkdir(parents=True)
    (www / "1k").write_bytes(b"x" * GET_BODY_BYTES)
    with (www / "100m").open("wb") as large:
        large.truncate(TRANSFER_BYTES)
    listen = "\n".join(f"        listen {host}:{port} backlog=4096;" for host in addresses)
    return _write(directory, _ORIGIN.format(listen=listen, directory=directory))


def proxy_config(directory: Path, port: int, origin: str) -> Path:
    """Write a reverse proxy from `port` to `origin` (host and port); gives the file's path."""
    directory.mkdir(parents=True)
    return _write(directory, _PROXY.format(port=port, origin=origin))


def _write(directory: Path, servers: str) -> Path:
    path = directory / "nginx.conf"
    path.write_text(_COMMON.format(directory=directory, servers=servers))
    return path
