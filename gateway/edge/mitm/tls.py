"""Where TLS ends: our own OpenSSL contexts, TLS 1.3 only, a device certificate asked of every peer.

A certificate that does not chain to the device CA fails the handshake. Whether the device is in good standing (record,
CRL, profile) is asked at every request, so that it gets a reason and so that a long connection cannot outlive it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.tls import ClientTLSLayer, TLSLayer
from mitmproxy.proxy.tunnel import TunnelState
from mitmproxy.tls import ClientHello
from OpenSSL import SSL, crypto

from gateway.edge.mitm.commands import OURS, Abort
from gateway.edge.mitm.turn_budget import Later

_HELLO_BYTES = 1 << 15
_ALPN = (b"h2", b"http/1.1")
_GREASE = frozenset(0x0A0A + 0x1010 * step for step in range(16))
_SNI, _ALPN_EXTENSION, _VERSIONS, _SIGNATURES, _PSK = 0x0000, 0x0010, 0x002B, 0x000D, 0x0029
_VERSION_NAMES = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3"}


class ServerContexts:
    """One context for each server certificate, picked by the server name.

    Raises ValueError or OpenSSL.SSL.Error for a certificate, key or CA that cannot be used.
    """

    def __init__(self, certificates: Sequence[tuple[Path, Path]], device_ca: Path | None) -> None:
        self._names: dict[str, SSL.Context] = {}
        self._contexts: list[SSL.Context] = []
        for certificate, key in certificates:
            context = _context(certificate, key, device_ca)
            self._contexts.append(context)
            for name in _names(certificate):
                self._names.setdefault(name, context)
        if not self._contexts:
            raise ValueError("no server certificate")

    def connection(self, sni: str | None) -> SSL.Connection:
        """A server-side connection for a peer that asked for `sni`; an unknown name gets the first certificate."""
        name = (sni or "").lower()
        made = self._names.get(name) or self._names.get(f"*.{name.partition('.')[2]}") or self._contexts[0]
        connection = SSL.Connection(made)
        connection.set_accept_state()
        return connection


def _names(certificate: Path) -> list[str]:
    leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    try:
        sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in sans.get_values_for_type(x509.DNSName)]


def _context(certificate: Path, key: Path, device_ca: Path | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    # Without tickets and cache every connection proves its key anew.
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate_chain_file(str(certificate))
    context.use_privatekey_file(str(key))
    context.check_privatekey()
    context.set_alpn_select_callback(_choose)
    if device_ca is not None:
        context.load_verify_locations(str(device_ca))
        authorities = x509.load_pem_x509_certificates(device_ca.read_bytes())
        context.set_client_ca_list(
            [crypto.X509.from_cryptography(authority).get_subject() for authority in authorities]
        )
        context.set_verify(SSL.VERIFY_PEER, lambda _connection, _certificate, _error, _depth, ok: bool(ok))
        context.set_verify_depth(3)
    return context


def _choose(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
    for name in _ALPN:
        if name in offered:
            return name
    # Whatever is raised here ends the handshake with the alert no_application_protocol (RFC 7301 section 3.2).
    raise SSL.Error([("SSL routines", "", "no application protocol")])


class GatewayTlsLayer(ClientTLSLayer):
    """mitmproxy's TLS layer at the front of the connection, with nothing behind it but HTTP."""

    def __init__(self, outer: context.Context) -> None:
        TLSLayer.__init__(self, outer, outer.client)
        self.server_tls_available = False
        self.recv_buffer = bytearray()
        self._plain: list[bytes] = []

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Gather what one event makes us say, so that it leaves in as few records as it can."""
        if self.tunnel_state is not TunnelState.OPEN or isinstance(event, events.ConnectionClosed):
            yield from super().handle_event(event)
            yield from self.flush()
            return
        # Once the handshake is done nothing here blocks: the short way through mitmproxy's four layers of generators.
        closed = False
        if isinstance(event, events.DataReceived) and event.connection is self.conn:
            plaintext, closed = self._decrypt(event.data)
            event = events.DataReceived(self.conn, plaintext)
        if not isinstance(event, events.DataReceived) or event.data:
            yield from self._pass_on(event)
        if closed:
            self.conn.state &= ~ConnectionState.CAN_READ
            yield from self._pass_on(events.ConnectionClosed(self.conn))
        yield from self.flush()

    def _decrypt(self, data: bytes) -> tuple[bytes, bool]:
        """What these bytes say, and whether the peer has said goodbye; a broken record ends the connection."""
        self.tls.bio_write(data)
        parts: list[bytes] = []
        while True:
            try:
                parts.append(self.tls.recv(65_535))
            except SSL.WantReadError:
                return b"".join(parts), False
            except SSL.Error:
                return b"".join(parts), True

    def _pass_on(self, event: events.Event) -> layer.CommandGenerator[None]:
        for command in self.child_layer.handle_event(event):
            if type(command) is commands.SendData and command.connection is self.conn:
                self._plain.append(command.data)
            elif isinstance(command, commands.ConnectionCommand) and command.connection is self.conn:
                yield from self._handle_command(command)
            else:
                yield command

    def send_data(self, data: bytes) -> layer.CommandGenerator[None]:
        """Hold plaintext back until the event has been handled."""
        self._plain.append(data)
        yield from ()

    def flush(self) -> layer.CommandGenerator[None]:
        """Encrypt what was held back."""
        if self._plain:
            data = b"".join(self._plain)
            self._plain.clear()
            with contextlib.suppress(SSL.ZeroReturnError, SSL.SysCallError):
                self.tls.sendall(data)
        if self.tls:
            # Also what TLS itself has to say (a key update's answer, an alert).
            yield from self.tls_interact()

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        """Bound the ClientHello, which is gathered before OpenSSL sees it."""
        if not self.client_hello_parsed and len(self.recv_buffer) + len(data) > _HELLO_BYTES:
            return False, "the ClientHello is too large"
        return (yield from super().receive_handshake_data(data))

    def on_handshake_error(self, err: str) -> layer.CommandGenerator[None]:
        """Send OpenSSL's alert before the connection ends, so that the peer knows why."""
        if self.tls:
            yield from self.tls_interact()
        yield from super().on_handshake_error(err)

    def _handle_command(self, command: commands.Command) -> layer.CommandGenerator[None]:
        if isinstance(command, Abort):
            # No goodbye: the peer must not take a part for the whole (RFC 8446 section 6.1).
            self._plain.clear()
            yield command
        elif isinstance(command, Later):
            yield command
        elif isinstance(command, OURS):
            if self.tls and command.connection == self.conn:
                yield from self._say_goodbye()
            yield command
        else:
            yield from super()._handle_command(command)

    def send_close(self, command: commands.CloseConnection) -> layer.CommandGenerator[None]:
        """Close with close_notify, so that the peer can tell an end from a cut (RFC 8446 section 6.1)."""
        yield from self._say_goodbye()
        yield command

    def _say_goodbye(self) -> layer.CommandGenerator[None]:
        yield from self.flush()
        try:
            self.tls.shutdown()
        except SSL.Error:
            return
        yield from self.tls_interact()


def ja4(hello: ClientHello) -> str:
    """The JA4 fingerprint of a TLS ClientHello over TCP (FoxIO JA4, BSD-3), without the pre-shared-key extension."""
    extensions = [(kind, body) for kind, body in hello.extensions if kind not in _GREASE and kind != _PSK]
    ciphers = [suite for suite in hello.cipher_suites if suite not in _GREASE]
    bodies = dict(extensions)
    offered = bodies.get(_VERSIONS, b"")[1:]
    versions = [int.from_bytes(offered[at : at + 2]) for at in range(0, len(offered) - 1, 2)]
    version = max((number for number in versions if number not in _GREASE), default=0x0303)
    protocols = hello.alpn_protocols
    first = protocols[0] if protocols else b""
    alpn = f"{chr(first[0])}{chr(first[-1])}" if first and first[:1].isalnum() and first[-1:].isalnum() else "00"
    kinds = sorted(f"{kind:04x}" for kind, _ in extensions if kind not in {_SNI, _ALPN_EXTENSION})
    algorithms = bodies.get(_SIGNATURES, b"")[2:]
    signatures = ",".join(algorithms[at : at + 2].hex() for at in range(0, len(algorithms) - 1, 2))
    return (
        f"t{_VERSION_NAMES.get(version, '00')}{'d' if hello.sni else 'i'}"
        f"{min(len(ciphers), 99):02d}{min(len(extensions), 99):02d}{alpn}"
        f"_{_hash12(','.join(sorted(f'{suite:04x}' for suite in ciphers)))}"
        f"_{_hash12(','.join(kinds) + (f'_{signatures}' if signatures else ''))}"
    )


def _hash12(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12] if text else "0" * 12
