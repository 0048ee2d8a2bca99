"""Which web services of this machine are found."""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from gateway.operations.listening import free_port, listening_ports, web_services

ROWS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000 100 0 0 10 0
   2: 0200A8C0:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000 100 0 0 10 0
   3: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000 100 0 0 10 0
   4: 0100007F:D431 0100007F:0BB8 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0000 100 0 0 10 0
"""


class _Hello(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_ports_on_loopback_or_everywhere_are_found_and_privileged_or_connected_ones_are_not(tmp_path):
    table = tmp_path / "tcp"
    table.write_text(ROWS)
    assert listening_ports([table, tmp_path / "missing"]) == [3000, 8080]


def test_what_speaks_http_is_offered_whatever_it_answers():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hello)
    Thread(target=server.serve_forever, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = web_services()
        assert f"http://127.0.0.1:{server.server_port}" in addresses
        assert f"http://127.0.0.1:{silent.getsockname()[1]}" not in addresses
    server.shutdown()
    server.server_close()


def test_a_port_that_is_taken_gives_way_to_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) not in {0, port}
    assert free_port(0)


@pytest.mark.parametrize("row", ["", "garbage", "0: x y z"])
def test_a_table_of_another_shape_offers_nothing(tmp_path, row):
    table = tmp_path / "tcp"
    table.write_text("head\n" + row + "\n")
    assert listening_ports([table]) == []
