"""Request heads are encoded in time that grows with their length only."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest

from fastapi_proxy_di.transport.http2.streams import StreamFaultsConnection


@pytest.mark.parametrize("table_size", [0, 100, 4096])
def test_large_value_is_sent_as_it_is(table_size: int) -> None:
    """Huffman coding of a megabyte would take minutes; a server reads the head all the same."""
    client = StreamFaultsConnection(
        h2.config.H2Configuration(client_side=True, header_encoding=None), 65536
    )
    server = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, header_encoding=None)
    )
    server.decoder.max_header_list_size = 2**22
    client.initiate_connection()
    server.initiate_connection()
    server.update_settings({1: table_size})
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    server.receive_data(client.data_to_send())
    large = b"a~" * 500_000
    head = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"billing"),
        (b":path", b"/"),
        (b"x-large", large),
    ]

    for stream in (1, 3):
        client.send_headers(stream, head, end_stream=True)
        sent = client.data_to_send()
        assert b"a~" * 1000 in sent
        (request,) = [
            one for one in server.receive_data(sent) if isinstance(one, h2.events.RequestReceived)
        ]
        assert [tuple(pair) for pair in request.headers] == head
