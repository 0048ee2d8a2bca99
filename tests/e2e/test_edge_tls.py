"""Where TLS ends: versions, certificates on both sides, ALPN, server names, goodbyes, and no resumption."""

from __future__ import annotations

import socket
import ssl

import pytest

from gateway.core.routes import Route
from tests.support.edge_clients import Http1, dial, tls_context
from tests.support.edge_world import HOST, OTHER_HOST, WILD_HOST


def names_shown(sock: ssl.SSLSocket) -> list[str]:
    shown = sock.getpeercert()
    assert shown
    return [value for _, value in shown["subjectAltName"]]


def test_tls_1_3_is_spoken(edge, connect):
    client = connect(edge)
    assert client.sock.version() == "TLSv1.3"
    edge.until(lambda: edge.counts.handshakes == ["ok"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
def test_an_older_version_is_refused_with_an_alert(edge, world, upstream, version):
    context = tls_context(world.certificates, ["http/1.1"])
    context.maximum_version = version
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION|protocol version"):
        dial(edge.port, world.certificates, context=context)
    edge.until(lambda: edge.counts.handshakes == ["failed"])
    assert upstream.received == b""


# ---- the device's certificate ----


def test_a_device_certificate_is_known(edge, connect):
    assert connect(edge).ask().status == 200
    assert edge.ports.events[0]["device"] == "dev-1"


def test_no_certificate_passes_where_the_route_allows(edge, connect):
    assert connect(edge, device=None).ask().status == 200
    assert "device" not in edge.ports.events[0]


def test_no_certificate_is_a_reason_where_the_route_demands_one(world, upstream, connect, connect2):
    running = world.edge(upstream.url, route={"device_required": True})
    for client in (connect(running, device=None), connect2(running, device=None)):
        found = client.ask()
        assert (found.status, found.reason) == (403, "device_required")
    assert upstream.received == b""
    assert connect(running).ask().status == 200


def test_a_foreign_certificate_fails_in_the_handshake(edge, world, upstream):
    sock = dial(edge.port, world.certificates, alpn=["http/1.1"], device="foreign_device")
    with sock, pytest.raises(ssl.SSLError, match="UNKNOWN_CA|unknown ca"):
        sock.recv(1)
    edge.until(lambda: edge.counts.handshakes == ["failed"])
    assert upstream.received == b""


def test_a_certificate_without_its_key_fails_in_the_handshake(edge, world, tmp_path):
    own = world.certificates
    context = tls_context(own, ["http/1.1"], device=None)
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain(own.device.cert_file, own.foreign_device.key_file)


# ---- what is agreed ----


def test_http2_is_preferred(edge, world):
    with dial(edge.port, world.certificates, alpn=["http/1.1", "h2"]) as sock:
        assert sock.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("alpn", [["spdy/3"], ["http/1.0", "h3"], ["acme-tls/1"], ["H2"], ["h2c"]])
def test_without_a_common_protocol_the_handshake_ends(edge, world, alpn):
    with pytest.raises(ssl.SSLError, match="no application protocol"):
        dial(edge.port, world.certificates, alpn=alpn)
    # The next client of the same context is none the worse.
    with dial(edge.port, world.certificates, alpn=["http/1.1"]) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"


def test_a_client_that_offers_no_protocol_speaks_http1(edge, connect):
    client = connect(edge, alpn=None)
    assert client.sock.selected_alpn_protocol() is None
    assert client.ask().status == 200


def test_http2_without_alpn_is_refused(edge, upstream, connect):
    client = connect(edge, alpn=["http/1.1"])
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0")
    assert client.answer().status == 400
    assert upstream.received == b""


@pytest.mark.parametrize(
    ("sni", "shown"),
    [(HOST, HOST), (OTHER_HOST, OTHER_HOST), (WILD_HOST, "*.wild.localhost"), ("A.LOCALHOST", HOST)],
)
def test_the_server_name_picks_the_certificate(edge, world, sni, shown):
    with dial(edge.port, world.certificates, sni=sni) as sock:
        assert names_shown(sock) == [shown]


@pytest.mark.parametrize("sni", ["nowhere.example", "a.b.wild.localhost", "wild.localhost", None])
def test_any_other_server_name_gets_the_first_certificate(edge, world, sni):
    context = tls_context(world.certificates, None)
    context.check_hostname = False
    with dial(edge.port, world.certificates, sni=sni, context=context) as sock:
        assert names_shown(sock) == [HOST]


def test_each_host_has_its_own_route(world, upstream, serve, connect):
    running = world.edge(
        upstream.url,
        routes=[
            Route("one", HOST, upstream="svc", device_required=False),
            Route("two", "*.wild.localhost", upstream="svc", device_required=False),
        ],
    )
    client = connect(running, sni=WILD_HOST)
    client.send(f"GET / HTTP/1.1\r\nhost: {WILD_HOST}\r\n\r\n")
    assert client.answer().status == 200
    assert running.ports.decisions[-1][0] == "two"
    other = connect(running, sni=OTHER_HOST)
    other.send(f"GET / HTTP/1.1\r\nhost: {OTHER_HOST}\r\n\r\n")
    assert other.answer().reason == "route_not_found"


# ---- the end of a connection, and no session after it ----


def test_the_end_of_a_connection_is_said(edge, connect):
    client = connect(edge)
    client.ask(headers=[("connection", "close")])
    assert client.closed()
    assert client.goodbye


def test_a_second_connection_proves_everything_anew(edge, world):
    context = tls_context(world.certificates, ["http/1.1"])
    session = None
    for _ in range(3):
        client = Http1(edge.port, world.certificates, context=context, session=session)
        assert client.ask().status == 200
        assert not client.sock.session_reused
        session = client.sock.session
        client.close()
    assert len(edge.ports.events) == 3
    assert {event["device"] for event in edge.ports.events} == {"dev-1"}


def test_noise_instead_of_a_handshake_is_cut(world, upstream):
    edge = world.edge(upstream.url, limits={"handshake_s": 0.3})
    for noise in (b"\x16\x03\x01\x00\x05hello", b"\x80\x2e\x01\x03\x01" + b"\0" * 50, b"\0" * 100, b"SSH-2.0-x\r\n"):
        with socket.create_connection(("127.0.0.1", edge.port), 5) as sock:
            sock.sendall(noise)
            sock.settimeout(5)
            try:
                while sock.recv(1000):
                    pass
            except ConnectionResetError:
                pass
    edge.until(lambda: edge.counts.open == 0)


def test_noise_inside_the_connection_is_cut(edge, world, connect):
    client = connect(edge)
    assert client.ask().status == 200
    raw = socket.socket(fileno=client.sock.detach())
    with raw:
        raw.settimeout(5)
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"\0" * 32)
        try:
            while raw.recv(1000):
                pass
        except ConnectionResetError:
            pass
    edge.until(lambda: edge.counts.open == 0)


def test_the_fingerprint_of_the_client_is_taken(edge, connect):
    connect(edge).ask()
    assert edge.ports.events[0]["ja4"].startswith("t13d")
