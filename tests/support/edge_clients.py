"""Blocking clients that say exactly the bytes a test wants: HTTP/1.1 by hand, HTTP/2 with the h2 library."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events

from tests.support.edge_world import HOST, Certificates

TIMEOUT_S = 10.0
Headers = list[tuple[str, str]]


@dataclass
class Answer:
    """A whole answer. `complete` is False when the connection ended before the message did."""

    status: int
    headers: Headers
    body: bytes = b""
    trailers: Headers = field(default_factory=list)
    complete: bool = True
    reset: int | None = None

    def get(self, name: str) -> str | None:
        """The value of a header, None without one; more than one fails the test."""
        found = self.all(name)
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def reason(self) -> str | None:
        return self.get("x-gateway-reason")


def tls_context(own: Certificates, alpn: list[str] | None, device: str | None = "device") -> ssl.SSLContext:
    """A client context; `device` names the certificate that is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(own.server_ca.cert_file)
    if alpn:
        context.set_alpn_protocols(alpn)
    if device:
        pair = getattr(own, device)
        context.load_cert_chain(pair.cert_file, pair.key_file)
    return context


def dial(
    port: int,
    own: Certificates,
    *,
    sni: str | None = HOST,
    alpn: list[str] | None = None,
    device: str | None = "device",
    context: ssl.SSLContext | None = None,
    receive_buffer: int | None = None,
    source: str = "",
    before_tls: bytes = b"",
    **how: Any,
) -> ssl.SSLSocket:
    """A TLS connection to the edge."""
    context = context or tls_context(own, alpn, device)
    if sni is None:
        context.check_hostname = False
    raw = socket.socket()
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.settimeout(TIMEOUT_S)
    try:
        if source:
            raw.bind((source, 0))
        raw.connect(("127.0.0.1", port))
        if before_tls:
            raw.sendall(before_tls)
        return context.wrap_socket(raw, server_hostname=sni, suppress_ragged_eofs=False, **how)
    except BaseException:
        raw.close()
        raise


class Http1:
    """One HTTP/1.1 connection."""

    def __init__(self, port: int, own: Certificates, **how: Any) -> None:
        how.setdefault("alpn", ["http/1.1"])
        self.sock = dial(port, own, **how)
        self.buffer = b""
        self.goodbye = False

    def close(self) -> None:
        self.sock.close()

    def cut(self) -> None:
        """End with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def send(self, data: bytes | str) -> None:
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def ask(self, target: str = "/", method: str = "GET", headers: Headers | None = None, body: bytes = b"") -> Answer:
        """One request with its answer."""
        fields = [("host", HOST), *(headers or [])]
        if body or method in {"POST", "PUT"}:
            fields.append(("content-length", str(len(body))))
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.send(head.encode("latin-1") + b"\r\n" + body)
        return self.answer(method)

    def more(self) -> bool:
        """Read what is there; False at the end. `goodbye` tells whether the end came with close_notify."""
        try:
            data = self.sock.recv(65_536)
        except ssl.SSLEOFError:
            return False
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            return False
        if not data:
            self.goodbye = True
            return False
        self.buffer += data
        return True

    def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise EOFError(self.buffer)
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def head(self) -> Answer:
        """The next head, interim ones included."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.more():
                raise EOFError(self.buffer)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        start, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = start.split(" ", 2)
        assert version == "HTTP/1.1"
        return Answer(
            int(status), [(name.lower(), value.strip()) for name, _, value in (x.partition(":") for x in lines)]
        )

    def answer(self, method: str = "GET") -> Answer:
        """The next final answer with its body."""
        answer = self.head()
        while answer.status < 200 and answer.status != 101:
            answer = self.head()
        if method == "HEAD" or answer.status in {101, 204, 304}:
            return answer
        try:
            if answer.get("transfer-encoding") == "chunked":
                assert answer.get("content-length") is None
                while size := int(self.line(), 16):
                    answer.body += self.exactly(size)
                    assert self.line() == b""
                while line := self.line():
                    name, _, value = line.decode("latin-1").partition(":")
                    answer.trailers.append((name.lower(), value.strip()))
            else:
                length = answer.get("content-length")
                assert length is not None
                answer.body = self.exactly(int(length))
        except EOFError as cut:
            answer.body += cut.args[0]
            answer.complete = False
        return answer

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self.more():
                rest, self.buffer = self.buffer, b""
                raise EOFError(rest)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def closed(self) -> bool:
        """Wait for the end of the connection; whether it came without a further byte."""
        while self.more():
            pass
        return not self.buffer


class Http2:
    """One HTTP/2 connection; nothing that is sent is validated."""

    def __init__(self, port: int, own: Certificates, *, window: int | None = None, **how: Any) -> None:
        self.authority = how.pop("authority", HOST)
        how.setdefault("alpn", ["h2"])
        self.sock = dial(port, own, **how)
        assert self.sock.selected_alpn_protocol() == "h2"
        self.conn = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.window = window
        self.keep = True
        self.taken = 0
        self.conn.local_settings.initial_window_size = 1 << 24 if window is None else window
        self.conn.local_settings.acknowledge()
        self.conn.initiate_connection()
        if window is None:
            self.conn.increment_flow_control_window(1 << 24)
        self.answers: dict[int, Answer] = {}
        self.ended: set[int] = set()
        self.interim: list[int] = []
        self.terminated: int | None = None
        self.gone = False
        self.flush()

    def close(self) -> None:
        self.sock.close()

    def flush(self) -> None:
        if data := self.conn.data_to_send():
            with suppress(OSError):
                self.sock.sendall(data)

    def start(
        self,
        path: str = "/",
        method: str = "GET",
        headers: Headers | None = None,
        body: bytes | None = None,
        *,
        end: bool = True,
        pseudo: Headers | None = None,
    ) -> int:
        """Begin a request; `end` False leaves it open for more."""
        if pseudo is None:
            pseudo = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        stream = self.conn.get_next_available_stream_id()
        self.conn.send_headers(stream, [*pseudo, *(headers or [])], end_stream=end and body is None)
        self.flush()
        if body is not None:
            self.data(stream, body, end=end)
        return stream

    def data(self, stream: int, body: bytes, *, end: bool = False) -> None:
        """Send body bytes as the windows allow."""
        view = memoryview(body)
        while view:
            room = min(self.conn.local_flow_control_window(stream), self.conn.max_outbound_frame_size, len(view))
            if room <= 0:
                self.read()
                if stream in self.ended or self.gone:
                    return
                continue
            self.conn.send_data(stream, bytes(view[:room]))
            view = view[room:]
            self.flush()
        if end:
            self.conn.end_stream(stream)
            self.flush()

    def ask(
        self, path: str = "/", method: str = "GET", headers: Headers | None = None, body: bytes | None = None
    ) -> Answer:
        """One request with its answer."""
        return self.answer(self.start(path, method, headers, body))

    def answer(self, stream: int) -> Answer:
        """The answer of a stream when it has ended."""
        while stream not in self.ended:
            assert not self.gone, f"the connection ended (GOAWAY {self.terminated})"
            self.read()
        return self.answers[stream]

    def read(self) -> None:
        """Read once and take in what it says."""
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError:
            raise
        except OSError:
            data = b""
        if not data:
            self.gone = True
            return
        for event in self.conn.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.InformationalResponseReceived():
                self.interim.append(int(dict(event.headers)[":status"]))
            case h2.events.ResponseReceived():
                fields = [(str(name), str(value)) for name, value in event.headers]
                self.answers[event.stream_id] = Answer(int(fields[0][1]), fields[1:], complete=False)
            case h2.events.DataReceived():
                self.taken += len(event.data)
                if self.keep:
                    self.answers[event.stream_id].body += event.data
                if self.window is None:
                    self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                self.answers[event.stream_id].trailers = [(str(name), str(value)) for name, value in event.headers]
            case h2.events.StreamEnded():
                self.answers[event.stream_id].complete = True
                self.ended.add(event.stream_id)
            case h2.events.StreamReset():
                answer = self.answers.setdefault(event.stream_id, Answer(0, [], complete=False))
                answer.reset = event.error_code
                self.ended.add(event.stream_id)
            case h2.events.ConnectionTerminated():
                self.terminated = event.error_code
            case _:
                pass

    def until_gone(self) -> int | None:
        """Wait for the end of the connection; the error code of its GOAWAY."""
        while not self.gone:
            self.read()
        return self.terminated
