"""Request targets: the canonical path with its decoded segments, and the fields of the query (RFC 3986 section 6.2).

What two servers could read in two ways is None; what browsers make of a link is not.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

# With `[`, `]`, `|` and `^`, which browsers leave as they are in a path.
_PATH = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/\[\]|^]*\Z")
_QUERY = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:@%/?\[\]|^`{}\"<>\\]*\Z")
_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PLAIN_PATH = re.compile(
    rb"/(?:[A-Za-z0-9\-_~!$&'()*+,=:@][A-Za-z0-9\-._~!$&'()*+,=:@]*"
    rb"(?:/[A-Za-z0-9\-_~!$&'()*+,=:@][A-Za-z0-9\-._~!$&'()*+,=:@]*)*/?)?\Z"
)
_FORBIDDEN_ESCAPE = re.compile(rb"%(?:5[cC]|[01][0-9A-Fa-f]|7[fF]|25(?:2[eEfF]|5[cC]|25|[01][0-9A-Fa-f]|7[fF]))")
# Bytes that are no UTF-8 and that a careless decoder takes for ASCII: overlong forms, and surrogates
# (RFC 3629 section 3).
_OVERLONG = re.compile(
    rb"[\xc0\xc1](?:[^0-9A-Za-z]|\Z)|[\xe0\xf0\xf8\xfc][\x80-\x9f][\x80-\xbf]|[\xf8-\xff][\x80-\xbf]"
    rb"|\xed[\xa0-\xbf][\x80-\xbf]"
)
_UNRESERVED_ESCAPE = re.compile(rb"%(2[dDeE]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9aA]|5[fF]|7[eE])")
_NO_UTF8 = re.compile("[\udc80-\udcff]")
_ESCAPE = re.compile(rb"%[0-9a-f]{2}", re.IGNORECASE)


def _decoded(raw: bytes) -> str | None:
    """The text of an escaped segment or field; bytes that are no UTF-8 stay escaped, None for overlong forms."""
    octets = unquote_to_bytes(raw)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        if _OVERLONG.search(octets):
            return None
        return _escaped(octets.decode("utf-8", "surrogateescape"))


def _escaped(text: str) -> str:
    """Text in which every byte that was no UTF-8 is a percent-escape."""
    return _NO_UTF8.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", text)


def segments_of_path(path: bytes, *, encoded_slash: bool = False) -> tuple[str, tuple[str, ...]] | None:
    """The canonical path and its decoded segments, None for a path that has more than one reading.

    An escaped slash, where it may stand, stays escaped: no segment has a slash.
    """
    if _PLAIN_PATH.match(path):
        text = path.decode("ascii")
        return text, tuple(text.strip("/").split("/")) if len(text) > 1 else ()
    if not _PATH.match(path) or _PERCENT.search(path) or b"//" in path:
        return None
    canonical = _UNRESERVED_ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), path)
    canonical = _ESCAPE.sub(lambda found: found[0].upper(), canonical)
    # After decoding what needs no escape: %25%32%65 is %252e.
    if _FORBIDDEN_ESCAPE.search(canonical) or (not encoded_slash and b"%2F" in canonical):
        return None
    decoded = []
    for raw in canonical.strip(b"/").split(b"/") if canonical != b"/" else ():
        pieces = [_decoded(piece) for piece in raw.split(b"%2F")]
        if any(piece is None or _is_misleading(piece) for piece in pieces) or (len(pieces) > 1 and "" in pieces):
            return None
        decoded.append("%2F".join(filter(None, pieces)))
    return canonical.decode("ascii"), tuple(decoded)


def _is_misleading(segment: str) -> bool:
    """Whether a segment is a dot segment for some reader, or has a separator for one that normalises."""
    plain = segment if segment.isascii() else unicodedata.normalize("NFKC", segment)
    if "%" in plain:
        # For who reads escaped bytes as Latin-1, a no-break space is white space.
        plain = unquote(plain, "latin-1")
    return plain.split(";", 1)[0].strip() in {".", ".."} or (not segment.isascii() and ("/" in plain or "\\" in plain))


def fields_of_query(query: bytes, most: int) -> tuple[tuple[str, str], ...] | None:
    """The decoded fields of a query, None for one that is no query or has more than `most` fields."""
    if not query:
        return ()
    if not _QUERY.match(query):
        return None
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="surrogateescape", max_num_fields=most)
    except ValueError:
        return None
    return tuple((_escaped(name), _escaped(value)) for name, value in pairs)
