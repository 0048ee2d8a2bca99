"""Forwarded addresses (X-Forwarded-For; Forwarded, RFC 7239): one hop's address, as proxies of the field write it.

Law: an address is read, or it is unknown. What has more than one reading is an error, never a guess.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 7239 section 6.3: an obfuscated identifier begins with an underscore.
_OBFUSCATED = re.compile(r"_[A-Za-z0-9._-]{1,64}\Z")
_PORT = re.compile(r"(?:[0-9]{1,5}|_[A-Za-z0-9._-]{1,64})\Z")
_MAX_PORT = 65_535


class BadHop(ValueError):
    """A member that is no address and no word for an unknown one."""


def canonical_address(text: str) -> Address | None:
    """An address, an IPv4-mapped one as the IPv4 address it is; None for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)
def read_hop(text: str) -> Address | None:
    """The address of one member; None for `unknown` and obfuscated ones. Raises BadHop.

    An address may have a port (Azure, F5) and an IPv6 address brackets, with or without one (RFC 7239 section 6).
    """
    if text.lower() == "unknown" or _OBFUSCATED.match(text):
        return None
    address = canonical_address(text)
    if address is not None and "%" not in text:
        return address
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise BadHop(text)
        port = rest[1:] if rest else None
    else:
        host, colon, port = text.partition(":")
        if not colon:
            raise BadHop(text)
        if host.lower() == "unknown" or _OBFUSCATED.match(host):
            if not _is_port(port):
                raise BadHop(text)
            return None
    address = canonical_address(host)
    if address is None or "%" in host or (port is not None and not _is_port(port)):
        raise BadHop(text)
    return address


def _is_port(text: str) -> bool:
    return bool(_PORT.match(text)) and (text.startswith("_") or int(text) <= _MAX_PORT)


def forwarded_hops(values: list[str]) -> list[str]:
    """The members of X-Forwarded-For fields in their order; empty ones are none (RFC 9110 section 5.6.1)."""
    return [hop for value in values for part in value.split(",") if (hop := part.strip(" \t"))]
