"""What the tour throws at the gateway: headers, paths and framings that two parsers could read in two ways."""

from __future__ import annotations

# Every spelling of a header that only the gateway may set.
SPOOFED = (
    ("X-Gateway-Subject", "root"),
    ("x_gateway_subject", "root"),
    ("X-GATEWAY-ROLES", "root"),
    ("X-Gateway-Jwt-Assertion", "root"),
    ("X-Forwarded-For", "203.0.113.66"),
    ("X_Forwarded_For", "203.0.113.66"),
    ("Forwarded", "for=203.0.113.66"),
    ("X-Real-IP", "203.0.113.66"),
    ("X-Original-URL", "/root"),
)
# Paths that mean another one to somebody.
PATHS = (
    "/x/../headers",
    "/x/%2e%2e/headers",
    "/x/%2E./headers",
    "/x/..;/headers",
    "/x%2fheaders",
    "/x%252fheaders",
    "/x%5cheaders",
    "//headers",
    "/headers%00",
    "/headers%zz",
    "/x\\headers",
    "https://echo.localhost/headers",
)
# What follows the request line, Host and Authorization of a POST; a second request stands behind it.
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = (
    _CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    b"Content-Length: +0\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"X-Folded: one\r\n two\r\n\r\n",
    b"X-Bare: one\nX-Gateway-Subject: root\r\n\r\n",
    _CHUNKED + b"\r\n0x0\r\n\r\n",
)
