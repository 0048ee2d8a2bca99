"""The gateway's own cookies: read without guessing, written in one way, kept from upstreams (RFC 6265bis).

Law: a cookie that stands there twice is not believed at all, whichever of the two is ours; a value that this gateway
could not have made is no value. Every name has the `__Host-` prefix: one host, one path, TLS only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from gateway.core.reasons import Refusal

SESSION, SSO, BINDING = "__Host-gateway-session", "__Host-gateway-sso", "__Host-gateway-login"
BOUND = "__Host-gateway-bound"  # short-lived: the browser gets the next one for a proof of its key
_OURS = "__host-gateway-"
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_INVISIBLE = re.compile(r"[^\x21-\x7e]+")


def is_value(text: str) -> bool:
    """Whether `text` has the form of our random values: 256 bits in base64url."""
    return _VALUE.match(text) is not None


def digest(value: str) -> str:
    """What a store keeps of a value: its SHA-256 in hex."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def read_cookie(headers: Iterable[str], name: str) -> str | None | Refusal:
    """The value of the cookie `name` in these Cookie headers, None without one.

    Refusal `cookie_ambiguous` when there are several, `login_required` when it is none of our values.
    """
    found = [value for text in headers for pair in text.split(";") for key, value in (_pair(pair),) if key == name]
    if not found:
        return None
    if len(found) > 1:
        return Refusal("cookie_ambiguous", name)
    return found[0] if is_value(found[0]) else Refusal("login_required", f"a malformed {name}")


def without_ours(headers: Iterable[str]) -> list[str]:
    """These Cookie headers without the gateway's own cookies, in every spelling; empty ones are left out.

    Every other byte stays as it came, whatever its charset.
    """
    return [rest for text in headers if (rest := _without_ours(text))]


def _without_ours(text: str) -> str:
    pairs = text.split(";")
    foreign = [pair for pair in pairs if not _is_ours(_pair(pair)[0])]
    if len(foreign) < len(pairs):
        text = ";".join(foreign).strip(" \t")
    return text if text.strip("; \t") else ""


def sets_ours(set_cookie: str) -> bool:
    """Whether a Set-Cookie value would set one of the gateway's own cookies; an upstream may not.

    Also one without a name whose value looks like one of them: a browser sends the value alone. What a browser may
    trim off a name (white space, what cannot be seen) hides nothing.
    """
    name, value = _pair(set_cookie.partition(";")[0])
    return _is_ours(name or value) or not (name or value)


def cookie(name: str, value: str, max_age_s: int | None = None) -> str:
    """A Set-Cookie value; without `max_age_s` the cookie goes when the browser does."""
    life = "" if max_age_s is None else f"; Max-Age={max_age_s}"
    return f"{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{life}"


def no_cookie(name: str) -> str:
    """A Set-Cookie value that removes the cookie."""
    return cookie(name, "", 0)


def _pair(text: str) -> tuple[str, str]:
    """(name, value). Without "=" it is all name: a browser sends a nameless cookie so, whatever it looks like."""
    name, _, value = text.partition("=")
    return name.strip(" \t"), value.strip(" \t")


def _is_ours(name: str) -> bool:
    return _INVISIBLE.sub("", name).lower().startswith(_OURS)
