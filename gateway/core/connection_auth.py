"""Connection-based authentication: whether a message ties its connection to one person (RFC 4559, MS-NTHT).

NTLM and Negotiate prove who somebody is once, and the server takes every later request of the connection for theirs.
Nobody registers which schemes do that, so only those are passed over that prove it with each request anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# IANA's "HTTP Authentication Schemes", without Negotiate; then what object stores and API products send.
_EACH_REQUEST = frozenset(
    {
        *("basic", "bearer", "concealed", "digest", "dpop", "gnap", "hoba", "mutual", "oauth", "privatetoken"),
        *("scram-sha-1", "scram-sha-256", "vapid"),
        *("api-key", "apikey", "aws", "aws4-hmac-sha256", "aws4-ecdsa-p256-sha256", "google4-rsa-sha256", "hawk"),
        *("hmac", "key", "sharedaccesssignature", "sharedkey", "sharedkeylite", "signature", "splunk", "token"),
        *("genie-key", "deepl-auth-key", "client-id", "discogs", "bot", "jwt"),
    }
)
_CHALLENGES = frozenset({b"www-authenticate", b"proxy-authenticate"})
_CREDENTIALS = frozenset({b"authorization", b"proxy-authorization"})
# By which a server says it outright: IIS and HTTP.sys (Persistent-Auth), RFC 4559 section 6 (Proxy-Support).
_OUTRIGHT = frozenset({b"persistent-auth", b"proxy-support", b"connection-auth", b"x-connection-auth"})
_BOUND_WORD = re.compile(rb"(?<![a-z0-9])(?:ntlm|negotiate|nego2|nego|kerberos|credssp|livessp|spnego|passport1\.4)\b")
_SCHEME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")


def authenticates_connection(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether these fields of a request or a response make, or offer to make, the connection one person's.

    An unknown scheme does.
    """
    for raw_name, raw_value in fields:
        name = raw_name.lower()
        if name in _OUTRIGHT:
            return True
        if name in _CREDENTIALS or name in _CHALLENGES:
            value = raw_value.lower()
            scheme = _SCHEME.match(value.strip())
            if scheme is None or scheme[0].decode("ascii") not in _EACH_REQUEST or _BOUND_WORD.search(value):
                return True
    return False
