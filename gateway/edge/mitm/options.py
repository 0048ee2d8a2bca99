"""mitmproxy's options, as its layers read them: checked, streamed, nothing stored."""

from __future__ import annotations

from types import SimpleNamespace

OPTIONS = SimpleNamespace(
    validate_inbound_headers=True,
    normalize_outbound_headers=True,
    store_streamed_bodies=False,
    stream_large_bodies=None,
    body_size_limit=None,
    keep_host_header=True,
    websocket=True,
    rawtcp=False,
    http2_ping_keepalive=0,
    proxy_debug=False,
)
