"""Server contexts by name, and fingerprints by the book; tests/e2e/test_edge_tls.py shakes hands."""

from __future__ import annotations

import datetime as dt
import ssl
import struct

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mitmproxy.proxy.layers.tls import parse_client_hello
from OpenSSL import SSL

from gateway.edge.mitm.tls import ServerContexts, ja4
from tests.support.clock import NOW as AN_HOUR_AGO

NOW = dt.datetime.fromtimestamp(AN_HOUR_AGO, dt.UTC)
DAY = dt.timedelta(days=1)


def made(folder, name, *names, key=None):
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(item) for item in names]), critical=False
        )
    certificate = builder.sign(key, hashes.SHA256())
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


@pytest.fixture
def pairs(tmp_path):
    return [
        made(tmp_path, "one", "A.example"),
        made(tmp_path, "two", "b.example", "*.b.example"),
        made(tmp_path, "three"),
    ]


@pytest.mark.parametrize(
    ("name", "picked"),
    [
        ("a.example", 0),
        ("A.EXAMPLE", 0),
        ("b.example", 1),
        ("x.b.example", 1),
        ("x.y.b.example", 0),
        ("three", 0),
        ("", 0),
        (None, 0),
        ("b", 0),
    ],
)
def test_the_name_picks_the_context_and_any_other_gets_the_first(pairs, name, picked):
    contexts = ServerContexts(pairs, None)
    assert contexts.connection(name).get_context() is contexts._contexts[picked]


def test_without_a_certificate_there_is_no_server():
    with pytest.raises(ValueError, match="no server certificate"):
        ServerContexts([], None)


def test_a_key_of_another_certificate_is_refused(pairs):
    with pytest.raises(SSL.Error):
        ServerContexts([(pairs[0][0], pairs[1][1])], None)


def test_a_file_that_is_no_certificate_is_refused(tmp_path, pairs):
    (tmp_path / "none.pem").write_bytes(b"none")
    with pytest.raises((SSL.Error, ValueError)):
        ServerContexts([(tmp_path / "none.pem", pairs[0][1])], None)
    with pytest.raises((SSL.Error, ValueError)):
        ServerContexts(pairs, tmp_path / "none.pem")


def test_every_peer_is_asked_for_a_certificate_where_a_device_ca_is(pairs):
    with_ca = ServerContexts(pairs, pairs[0][0]).connection(None)
    without = ServerContexts(pairs, None).connection(None)
    assert with_ca.get_context().get_verify_mode() == SSL.VERIFY_PEER
    assert without.get_context().get_verify_mode() == SSL.VERIFY_NONE


# ---- JA4 ----


def hello(ciphers, extensions, version=0x0303):
    """A ClientHello in a record."""
    listed = b"".join(struct.pack(">HH", kind, len(body)) + body for kind, body in extensions)
    suites = b"".join(struct.pack(">H", cipher) for cipher in ciphers)
    body = struct.pack(">H", version) + bytes(32) + b"\0" + struct.pack(">H", len(suites)) + suites + b"\1\0"
    body += struct.pack(">H", len(listed)) + listed
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    found = parse_client_hello(b"\x16\x03\x01" + struct.pack(">H", len(message)) + message)
    assert found is not None
    return found


def name_of(text):
    return struct.pack(">HBH", len(text) + 3, 0, len(text)) + text


def protocols(*names):
    joined = b"".join(bytes([len(name)]) + name for name in names)
    return struct.pack(">H", len(joined)) + joined


# The hello and the fingerprint that the JA4 specification itself works through.
SPECIFIED_CIPHERS = [
    0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013, 0xC014,
    0x009C, 0x009D, 0x002F, 0x0035,
]  # fmt: skip
SIGNATURES = bytes.fromhex("00100403080404010503080505010806 0601".replace(" ", ""))
SPECIFIED = [
    (0x0A0A, b""), (0x001B, b""), (0x0000, name_of(b"a.example")), (0x0033, b""),
    (0x0010, protocols(b"h2", b"http/1.1")),
    (0x4469, b""), (0x0017, b""), (0x002D, b""), (0x000D, SIGNATURES), (0x0005, b""), (0x0023, b""), (0x0012, b""),
    (0x002B, b"\x06\x0a\x0a\x03\x04\x03\x03"), (0xFF01, b""), (0x000B, b""), (0x000A, b""), (0x0015, b""),
]  # fmt: skip


def test_the_specifications_own_example():
    assert ja4(hello([0x0A0A, *SPECIFIED_CIPHERS], SPECIFIED)) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_order_and_grease_make_no_difference():
    other = hello([0x2A2A, *reversed(SPECIFIED_CIPHERS)], [(0x1A1A, b""), *reversed(SPECIFIED[1:])])
    assert ja4(other) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_a_pre_shared_key_makes_no_difference():
    other = hello(SPECIFIED_CIPHERS, [*SPECIFIED, (0x0029, b"xyz")])
    assert ja4(other) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_a_hello_of_nothing_has_a_fingerprint_too():
    assert ja4(hello([], [])) == "t12i000000_000000000000_000000000000"


@pytest.mark.parametrize(
    ("names", "shown"),
    [((b"h2",), "h2"), ((b"http/1.1",), "h1"), ((b"\x02x",), "00"), ((b"x\xff",), "00"), ((b"q",), "qq")],
)
def test_the_protocol_is_shown_by_its_ends(names, shown):
    assert ja4(hello([0x1301], [(0x0010, protocols(*names))]))[8:10] == shown


def test_a_real_clients_hello_is_read():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    found = parse_client_hello(outgoing.read())
    assert found is not None
    assert ja4(found).startswith("t13d")
