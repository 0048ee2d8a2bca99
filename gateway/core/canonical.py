"""Canonicalisation of host, path, query and headers: a raw request becomes `RequestFacts`, or a `Refusal`.

Law: what is judged is what is forwarded. The edge sends upstream exactly `target` and `headers` of the facts that were
judged (plus what the gateway itself sets), never the bytes the client sent. Whatever two parsers could read in two
ways is refused here, before a route is looked up (RFC 9110 section 5, RFC 9112 sections 5 and 6, RFC 3986 section 6.2).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from gateway.core.forwarded import BadHop, forwarded_hops, read_hop
from gateway.core.header_names import HOP_BY_HOP, is_asserted, is_disguised, is_ours, is_override
from gateway.core.reasons import Refusal
from gateway.core.request import IpNetwork, Peer, RawRequest, RequestFacts, RequestLimits
from gateway.core.targets import fields_of_query, segments_of_path

_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-zA-Z]{1,64}\Z")
_NO_METHOD = frozenset({b"CONNECT", b"TRACE", b"TRACK"})  # in any case: what folds methods would tunnel or mirror


_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-zA-Z]{1,256}\Z")


_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


_HOST = re.compile(rb"(?:\[([0-9a-fA-F:.]{2,45})\]|([a-z0-9](?:[a-z0-9.-]{0,252}))):?([0-9]{1,5})?\Z")


_GRPC = re.compile(r"application/grpc(?:[+;]|\Z)")


_LENGTH = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")


_SHORT = 128


_MAX_PORT, _HTTPS_PORT = 65_535, 443


_NEVER_CONNECTION_LISTED = frozenset(
    {"authorization", "cookie", "host", "content-length", "content-type", "origin", "dpop", "expect", "sec-fetch-site"}
)

_LIMITS = RequestLimits()


def _bad(detail: str) -> Refusal:
    return Refusal("malformed_request", detail)


@lru_cache(maxsize=4096)
def _name(raw: bytes) -> str | None:
    return raw.decode("ascii").lower() if _TOKEN.match(raw) else None


def _read_field(raw_name: bytes, raw_value: bytes) -> tuple[str | None, str]:
    """A field's lower-case name and its value; None for one that is malformed."""
    if _BAD_VALUE.search(raw_value):
        return None, ""
    return _name(raw_name), raw_value.strip(b" \t").decode("latin-1")


# Most fields are the same from request to request; long values (credentials, cookies) are not kept.
_field = lru_cache(maxsize=4096)(_read_field)


@lru_cache(maxsize=4096)
def _host(raw: bytes) -> tuple[str, int] | None:
    """The canonical host and its port, by default 443; None for what is no authority."""
    match = _HOST.match(raw.lower())
    if match is None or (match[3] and int(match[3]) > _MAX_PORT) or raw.endswith(b":"):
        return None
    if match[1] is not None:
        try:
            host = f"[{ipaddress.IPv6Address(match[1].decode())}]"
        except ValueError:
            return None
    else:
        host = match[2].decode().removesuffix(".")
        if ".." in host or host.endswith((".", "-")):
            return None
    return host, int(match[3]) if match[3] else _HTTPS_PORT


def _authority(host: str, port: int) -> str:
    """Host, and port where it is not the default one (RFC 3986 section 6.2.3)."""
    return host if port == _HTTPS_PORT else f"{host}:{port}"


def canonical_url(text: str) -> str | None:
    """An https URL spelled as `origin` and `path` are, without query and fragment; None for what is none."""
    scheme, mark, rest = text.partition("://")
    if not mark or scheme.lower() != "https" or not text.isascii():
        return None
    authority, _, path = rest.partition("?")[0].partition("#")[0].partition("/")
    named, canonical = _host(authority.encode("ascii")), canonical_path(f"/{path}".encode("ascii"))
    return None if named is None or canonical is None else f"https://{_authority(*named)}{canonical[0]}"


def canonical_path(path: bytes) -> tuple[str, tuple[str, ...]] | None:
    """The canonical path and its decoded segments, None for a path that has more than one reading.

    An encoded slash stands: whether it may is the route's to say.
    """
    return segments_of_path(path, encoded_slash=True)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, an IPv4-mapped one as the IPv4 address it is; None for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_within(ip: str, networks: Sequence[IpNetwork]) -> bool:
    """Whether an address, as a socket or a header gives it, is in one of the networks."""
    address = _address(ip.partition("%")[0]) if networks else None
    return address is not None and any(address in network for network in networks)


def client_network(text: str) -> str:
    """What one client can be told from another by: an IPv4 address, or the /64 of an IPv6 address."""
    address = _address(text.partition("%")[0])
    if address is None or address.version == 4:  # noqa: PLR2004
        return text if address is None else str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def _client_ip(peer: Peer, forwarded_for: list[str], trusted: Sequence[IpNetwork]) -> str | None:
    """The nearest address that is no trusted proxy; None when a trusted proxy sent something that is no address.

    Behind an unknown or obfuscated hop nobody is known: the proxy that sent it stands for its clients.
    """
    address = _address(peer.ip.split("%", 1)[0])
    if address is None:
        return None
    hops = forwarded_hops(forwarded_for)
    while hops and any(address in network for network in trusted):
        try:
            before = read_hop(hops.pop())
        except BadHop:
            return None
        if before is None:
            break
        address = before
    return str(address)


def admit(
    raw: RawRequest,
    peer: Peer,
    limits: RequestLimits = _LIMITS,
    trusted_proxies: Sequence[IpNetwork] = (),
    judged_headers: frozenset[str] | None = frozenset(),
    own_ports: frozenset[int] = frozenset(),
    *,
    encoded_slash: bool = False,
) -> RequestFacts | Refusal:
    """Canonicalise one request's head. `judged_headers`: the names that policy reads, None for every one.

    `encoded_slash`: a route may want `%2F` in a path; the others refuse it in `RouteTable.match`.

    `own_ports` may stand in Host, beside the port that the peer connected to and 443, which is the same as none.

    Answers a `Refusal` with `malformed_request`, `headers_too_large` or `misdirected_request`; never raises.
    """
    if not _METHOD.match(raw.method) or raw.method.upper() in _NO_METHOD:
        return _bad("method")
    if len(raw.target) > limits.target_bytes:
        return Refusal("headers_too_large", "request target")
    path, mark, query = raw.target.partition(b"?")
    if mark and not query:
        mark = b""
    canonical = segments_of_path(path, encoded_slash=encoded_slash)
    if canonical is None:
        return _bad("path")
    fields = fields_of_query(query, limits.query_fields)
    if fields is None:
        return _bad("query")

    method = raw.method.decode("ascii")
    kept: list[tuple[str, str]] = []
    asserted: list[tuple[str, str]] = []
    cookies: list[str] = []
    hop: dict[str, list[str]] = {}
    hosts: list[bytes] = []
    forwarded_for: list[str] = []
    lengths: list[str] = []
    size = count = 0
    for raw_name, raw_value in raw.headers:
        # The crumbs of a cookie are one field (RFC 9113 section 8.2.3).
        is_crumb = bool(cookies) and raw_name.lower() == b"cookie"
        size += len(raw_value) + (2 if is_crumb else len(raw_name) + 4)
        count += not is_crumb
        if size > limits.header_bytes or count > limits.header_count:
            return Refusal("headers_too_large", "header section")
        name, value = _field(raw_name, raw_value) if len(raw_value) <= _SHORT else _read_field(raw_name, raw_value)
        if name is None:
            return _bad("header field")
        if name == "host":
            hosts.append(raw_value.strip())
            continue
        if name in HOP_BY_HOP:
            hop.setdefault(name, []).append(value)
        elif name == "content-length":
            lengths.append(value)
        elif name == "cookie":
            cookies.append(value)
        elif is_ours(name):
            if name == "x-forwarded-for":
                forwarded_for.append(value)
            elif is_override(name) and method not in {value, value.upper()}:
                return _bad("method override")
        elif is_asserted(name):
            asserted.append((name, value))
        elif not is_disguised(name, judged_headers):
            kept.append((name, value))

    if len(hosts) > 1 or (raw.version == "1.1" and not hosts):
        return _bad("host")
    authority = raw.authority or (hosts[0] if hosts else b"")
    if hosts and hosts[0].lower() != authority.lower():
        return _bad("host and :authority differ")
    named = _host(authority)
    if named is None:
        return _bad("host")
    host, port = named
    if (peer.sni or "").lower().removesuffix(".") != host and not (peer.sni is None and _is_ip(host)):
        return Refusal("misdirected_request", "host is not the server name of this connection")
    if port not in {_HTTPS_PORT, peer.local_port} and port not in own_ports:
        return Refusal("misdirected_request", "the port is not ours")

    framed = _framing(raw, hop, lengths)
    if isinstance(framed, Refusal):
        return framed
    options = {option.strip().lower() for value in hop.get("connection", ()) for option in value.split(",")}
    if options & _NEVER_CONNECTION_LISTED or (raw.version == "2" and hop.keys() - {"te", "trailer"}):
        return _bad("connection options")
    if options:
        kept = [field for field in kept if field[0] not in options]
        asserted = [field for field in asserted if field[0] not in options]
    if cookies:
        # HTTP/2 sends a cookie in crumbs; everything behind us sees one field (RFC 9113 section 8.2.3).
        kept.append(("cookie", "; ".join(filter(None, cookies))))
    if any(name == "expect" and value.lower() != "100-continue" for name, value in kept):
        return _bad("expect")

    websocket = _upgrade(raw, hop, options, kept, framed)
    if isinstance(websocket, Refusal):
        return websocket
    kind = next((value for name, value in kept if name == "content-type"), "")
    if websocket:
        protocol = "websocket"
    elif raw.version == "2" and _GRPC.match(kind):
        protocol = "grpc"
    else:
        protocol = "h2" if raw.version == "2" else "http/1.1"
    client_ip = _client_ip(peer, forwarded_for, trusted_proxies)
    if client_ip is None:
        return _bad("x-forwarded-for")
    return RequestFacts(
        method=method,
        host=host,
        path=canonical[0],
        segments=canonical[1],
        query=query.decode("ascii") if mark else "",
        query_fields=fields,
        headers=tuple(kept),
        asserted=tuple(asserted),
        protocol=protocol,
        content_length=framed,
        peer=peer,
        client_ip=client_ip,
        authority=_authority(host, port),
    )


def _framing(raw: RawRequest, hop: dict[str, list[str]], lengths: list[str]) -> int | None | Refusal:
    """The body's length, None when chunked or ended by the stream; a Refusal when two readings are possible."""
    encodings = hop.get("transfer-encoding", [])
    if len(lengths) > 1 or (lengths and not _LENGTH.match(lengths[0])):
        return _bad("content-length")
    if encodings and (lengths or raw.version == "2" or len(encodings) > 1 or encodings[0].lower() != "chunked"):
        return _bad("transfer-encoding")
    if lengths:
        if raw.version == "2" and raw.ended and lengths[0] != "0":
            return _bad("content-length without a body")
        return int(lengths[0])
    return None if encodings or (raw.version == "2" and not raw.ended) else 0


def _upgrade(
    raw: RawRequest, hop: dict[str, list[str]], options: set[str], kept: list[tuple[str, str]], size: int | None
) -> bool | Refusal:
    """Whether this is a WebSocket opening handshake (RFC 6455 section 4.1); any other upgrade is ignored."""
    wanted = hop.get("upgrade")
    if wanted is None or "upgrade" not in options or len(wanted) > 1 or wanted[0].lower() != "websocket":
        return False
    names = [name for name, _ in kept]
    once = names.count("sec-websocket-key") == 1 and names.count("sec-websocket-version") == 1
    # What came as a body would be taken for frames that nobody looked at.
    if raw.method != b"GET" or size != 0 or not once:
        return _bad("websocket handshake")
    return True
