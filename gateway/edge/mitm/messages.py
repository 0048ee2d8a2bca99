"""mitmproxy's request and response objects, made from values that are right already.

Their own constructors convert and check every argument, which costs more than everything else that is done with them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from mitmproxy import http

Field = tuple[bytes, bytes]


def headers(fields: Iterable[Field]) -> http.Headers:
    """Header fields; names and values are bytes."""
    made = http.Headers.__new__(http.Headers)
    made.fields = tuple(fields)
    return made


def request(
    method: bytes,
    target: bytes,
    fields: Iterable[Field],
    *,
    version: bytes = b"HTTP/1.1",
    authority: bytes = b"",
    scheme: bytes = b"https",
) -> http.Request:
    """A request without a body; `target` is in origin form."""
    request = http.Request.__new__(http.Request)
    request.data = http.RequestData(
        http_version=version,
        headers=headers(fields),
        content=None,
        trailers=None,
        timestamp_start=time.time(),
        timestamp_end=None,
        host="",
        port=0,
        method=method,
        scheme=scheme,
        authority=authority,
        path=target,
    )
    return request


def response(
    status: int, fields: Iterable[Field], *, reason: bytes = b"", version: bytes = b"HTTP/1.1"
) -> http.Response:
    """A response without a body."""
    response = http.Response.__new__(http.Response)
    response.data = http.ResponseData(
        http_version=version,
        headers=headers(fields),
        content=None,
        trailers=None,
        timestamp_start=time.time(),
        timestamp_end=None,
        status_code=status,
        reason=reason,
    )
    return response
